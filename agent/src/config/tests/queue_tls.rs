//! `[queue.tls]`: what people write, and what comes of it.

use url::Url;

use super::super::{CA_FILE, CERT_FILE, KEY_FILE, QueuePlace};
use super::{SECRET, fails, load_text};

fn queue(url: &str, tls: &str) -> String {
    format!("[queue]\nurl = \"{url}\"\n[queue.tls]\n{tls}")
}

#[test]
fn the_files_become_parameters_of_the_url() {
    let text = queue(
        "amqps://me:hunter2@broker/v?heartbeat=5",
        "ca_file = \"/a b/ca.pem\"\ncert_file = \"/w.pem\"\nkey_file = \"${CREDENTIALS_DIRECTORY}/key\"",
    );
    let variables = [("CREDENTIALS_DIRECTORY", "/run/x")];
    let settings = load_text(&text, &variables).unwrap();
    let QueuePlace::Amqp(url) = &settings.queue.place else {
        panic!("{settings:?}");
    };
    let url = Url::parse(url.first().expose()).unwrap();
    let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let expected = [
        ("heartbeat", "5"),
        (CA_FILE, "/a b/ca.pem"),
        (CERT_FILE, "/w.pem"),
        (KEY_FILE, "/run/x/key"),
    ];
    assert_eq!(
        parameters,
        expected.map(|(n, v)| (n.to_owned(), v.to_owned()))
    );
    assert_eq!(url.password(), Some(SECRET));
}

#[test]
fn what_can_not_be_meant_is_an_error() {
    let plain = "amqp://me:hunter2@broker";
    let wrong = [
        (queue(plain, "ca_file = \"x\""), "amqps://"),
        (queue("sqlite:x.db", "ca_file = \"x\""), "amqps://"),
        (
            queue("amqps://broker", "cert_file = \"x\""),
            "queue.tls.key_file",
        ),
        (
            queue("amqps://broker", "key_file = \"x\""),
            "queue.tls.cert_file",
        ),
        (queue("amqps://broker", "certfile = \"x\""), "certfile"),
        (
            queue("amqps://me:hunter2@broker?cacertfile=y", "ca_file = \"x\""),
            "says it already",
        ),
    ];
    for (text, word) in wrong {
        fails(&text, &[], &["queue.tls", word]);
    }
}

#[tokio::test]
async fn a_url_in_a_file_is_read_again_with_the_same_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    let text = format!(
        "[queue]\nurl_file = {:?}\n[queue.tls]\nca_file = \"/ca.pem\"\n",
        file.to_str().unwrap()
    );
    std::fs::write(&file, "amqps://me:hunter2@broker\n").unwrap();
    let settings = load_text(&text, &[]).unwrap();
    let QueuePlace::Amqp(url) = &settings.queue.place else {
        panic!("{settings:?}");
    };
    std::fs::write(&file, "amqps://me:newer@broker\n").unwrap();
    let now = url.now().await.unwrap().unwrap();
    assert_eq!(now.expose(), "amqps://me:newer@broker?cacertfile=%2Fca.pem");
    assert_eq!(
        url.first().expose(),
        "amqps://me:hunter2@broker?cacertfile=%2Fca.pem"
    );

    std::fs::write(&file, "\n").unwrap();
    let error = url.now().await.unwrap_err().to_string();
    for words in ["queue.url_file", "is empty", file.to_str().unwrap()] {
        assert!(error.contains(words), "{error}");
    }
    std::fs::write(&file, "amqp://me:hunter2@broker").unwrap();
    let error = url.now().await.unwrap_err().to_string();
    assert!(
        error.contains("queue.tls") && !error.contains(SECRET),
        "{error}"
    );

    let settings = load_text("[queue]\nurl = \"amqp://broker\"\n", &[]).unwrap();
    let QueuePlace::Amqp(url) = &settings.queue.place else {
        panic!("{settings:?}");
    };
    assert!(url.now().await.unwrap().is_none(), "it stands in no file");
}
