//! The status page of a worker at work.

use serde_json::Value;
use tokio::time::{interval, timeout};

use super::harness::{PATIENCE, Place, Story, Work};
use crate::browser;

/// Waits until the worker tells of a run of which this is true.
async fn until(http: &reqwest::Client, url: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        let mut looks = interval(std::time::Duration::from_millis(100));
        loop {
            looks.tick().await;
            // At first nobody listens.
            if let Ok(reply) = http.get(url).send().await {
                let told: Value = reply.json().await.expect("JSON");
                if is_so(&told["runs"][0]) {
                    return told;
                }
            }
        }
    };
    let told = timeout(PATIENCE, looking).await;
    told.expect("waited in vain for the worker's page")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_a_run_while_it_is_under_way() {
    let story = Story::new(Place::Sqlite, 600).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let _worker = story.worker_with(&[("SPARKFERRY__HTTP__LISTEN", &address.to_string())]);
    let mut work = Work::new(1, 600_000, "SUCCESS");
    work.label = Some("<img src=x onerror=\"document.title='owned'\">");
    let (producer, _news) = story.submit(&[work]).await;
    let http = reqwest::Client::builder().no_proxy().build().expect("TLS");
    let data = format!("http://{address}/api/runs");
    let told = until(&http, &data, |run| run["state"] == "RUNNING").await;
    let run = &told["runs"][0];

    let shown = browser::document(&format!("http://{address}/")).await;
    for part in [
        "<td>work-1",
        "<td>1</td>",
        "<td>RUNNING",
        ">ready<",
        "prod: 1 under way",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (id, page) = (
        &run["run_id"],
        run["run_page_url"].as_str().expect("a link"),
    );
    assert!(
        shown.contains(&format!("href=\"{page}\"")),
        "{page}: {shown}"
    );
    assert!(shown.contains(&format!(">{id}</a>")), "{id}: {shown}");
    assert!(shown.contains("<small>team: &lt;img"), "{shown}");
    assert!(shown.contains("<title>Sparkferry</title>"), "{shown}");

    // The workspace goes away: so says the page.
    story.workspace.close();
    let readyz = format!("http://{address}/readyz");
    let troubled = async {
        let mut looks = interval(std::time::Duration::from_millis(100));
        loop {
            looks.tick().await;
            let reply = http.get(&readyz).send().await.expect("it listens");
            if reply.status() == 503 {
                return;
            }
        }
    };
    timeout(PATIENCE, troubled).await.expect("it notices");
    let shown = browser::document(&format!("http://{address}/")).await;
    assert!(shown.contains("<li>prod: "), "{shown}");
    assert!(shown.contains(">not ready<"), "{shown}");
    producer.close().await;
}
