//! The status page in a browser, with nothing but ill will behind it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use metrics_exporter_prometheus::PrometheusBuilder;
use sparkferry_agent::observe::runs::{Overview, Readiness, RunView};
use sparkferry_agent::observe::serve::{self, Source};
use tokio_util::sync::CancellationToken;

use crate::browser;

/// Each of these renames the page if it is taken for more than text.
const MARKUP: &str = "<script>document.title='owned'</script>";
const IMAGE: &str = "<img src=x onerror=\"document.title='owned'\">";
const ADDRESS: &str = "javascript:document.title='owned'";

/// A worker of which every word is somebody's attack.
struct Hostile;

impl Source for Hostile {
    fn overview(&self, limit: usize) -> Overview {
        let run = RunView {
            id: "a/b:c@d".parse().expect("an id"),
            connection: MARKUP.to_owned(),
            labels: BTreeMap::from([(MARKUP.to_owned(), IMAGE.to_owned())]),
            received_at: Timestamp::now(),
            attempt: Some(3),
            run_id: Some(7011),
            run_page_url: Some(ADDRESS.to_owned()),
            state: Some(MARKUP.to_owned()),
            done: Some(1),
            total: Some(3),
            cancel_requested: true,
        };
        Overview {
            worker: IMAGE.to_owned(),
            now: Timestamp::now(),
            readiness: self.readiness(),
            in_flight: BTreeMap::from([(MARKUP.to_owned(), 2)]),
            runs: vec![run; limit.min(1)],
        }
    }

    fn readiness(&self) -> Readiness {
        let connections = BTreeMap::from([(MARKUP.to_owned(), Some(IMAGE.to_owned()))]);
        Readiness::new(Some(MARKUP.to_owned()), connections, false)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_wrote_is_text_on_the_page_and_nothing_else() {
    let (listener, address) = serve::bind("127.0.0.1:0".parse().expect("an address"))
        .await
        .expect("a free port");
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let stop = CancellationToken::new();
    let serving = serve::serve(listener, Arc::new(Hostile), metrics, stop.clone());
    let serving = tokio::spawn(serving);

    let shown = browser::document(&format!("http://{address}/")).await;
    assert!(shown.contains("<title>Sparkferry</title>"), "{shown}");
    assert!(!shown.contains("<script>document"), "{shown}");
    assert!(!shown.contains("<img"), "{shown}");
    assert!(!shown.contains("href=\"javascript"), "{shown}");
    // It is all there, for people to see.
    let text = MARKUP.replace('<', "&lt;").replace('>', "&gt;");
    assert!(
        shown.contains(&format!("<li>queue: {text}</li>")),
        "{shown}"
    );
    assert!(shown.contains(&format!("<td>{text}<small>")), "{shown}");
    for part in [
        "a/b:c@d",
        "7011",
        "1 of 3 tasks",
        "cancel requested",
        "not ready",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.contains("1 of 2 are shown"), "{shown}");

    // Only the first of several tests in a process installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy();
    let page = http.build().expect("TLS").get(format!("http://{address}/"));
    let page = page.send().await.expect("the page");
    let policy = &page.headers()["content-security-policy"];
    let policy = policy.to_str().expect("text");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    stop.cancel();
    serving.await.expect("no panic").expect("it was served");
}
