use std::{
    io::{Read, Write},
    net::TcpListener,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tracing::{debug, error, info, info_span, subscriber::with_default, trace, warn};

use super::*;

/// Takes the lines in place of stderr.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn objects(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: Format, filter: &str, act: impl FnOnce()) -> Lines {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = subscriber(format, filter, false, move || writer.clone()).unwrap();
    with_default(subscriber, act);
    lines
}

#[test]
fn a_line_is_one_flat_object_that_begins_with_what_matters() {
    let lines = logged(Format::Json, "info", || {
        info!(
            event = "cycle.finished",
            account_id = 7,
            duration_ms = std::time::Duration::from_secs(2).as_millis(),
            rate = 0.5,
            held = true,
            mode = %"full",
            r#type = "user",
            "cycle finished: {} \"users\"\nchanged",
            3
        );
    });
    let mut line = lines.objects().remove(0);
    let timestamp = line.as_object_mut().unwrap().remove("timestamp").unwrap();
    assert!(timestamp.as_str().unwrap().ends_with('Z'));
    assert_eq!(
        line,
        json!({
            "level": "INFO", "message": "cycle finished: 3 \"users\"\nchanged", "event": "cycle.finished",
            "account_id": 7, "duration_ms": 2000, "rate": 0.5, "held": true, "mode": "full", "type": "user"
        })
    );
    let text = lines.text();
    assert_eq!(text.lines().count(), 1);
    let places =
        ["{\"timestamp\":", "\"level\":", "\"message\":", "\"event\":"].map(|name| text.find(name).unwrap());
    assert!(places.is_sorted());
}

#[test]
fn fields_of_spans_lie_flat_beside_the_others_and_the_nearest_wins() {
    let lines = logged(Format::Json, "info", || {
        let _account = info_span!("account", account_id = 7, mode = "incremental").entered();
        let cycle = info_span!("cycle", cycle_id = "c-1", mode = "full", requests = tracing::field::Empty);
        cycle.record("requests", 4);
        cycle.in_scope(|| warn!(event = "harvest.retried", requests = 5, level = "odd", "trying again"));
    });
    let mut line = lines.objects().remove(0);
    line.as_object_mut().unwrap().remove("timestamp");
    assert_eq!(
        line,
        json!({
            "level": "WARN", "message": "trying again", "event": "harvest.retried",
            "account_id": 7, "cycle_id": "c-1", "mode": "full", "requests": 5
        })
    );
    assert_eq!(lines.text().matches("\"requests\"").count(), 1);
}

#[test]
fn a_line_without_an_event_says_where_it_comes_from() {
    let lines =
        logged(Format::Json, "info", || info!(target: "sqlx", "nothing: not shown, as sqlx is quiet"));
    assert_eq!(lines.text(), "");
    let lines = logged(Format::Json, "info", || info!("hello"));
    assert_eq!(lines.objects()[0]["target"], "rosterd::telemetry::tests");
}

#[test]
fn a_line_of_a_library_has_an_event_and_is_no_error() {
    let speak = || {
        error!(target: "sqlx::query", event = "panic", rows = 3, "odd");
        tracing::event!(target: "log", tracing::Level::WARN, log.target = "rustls::conn", "closed");
        info!(target: "rosterdish", "not ours");
        error!(event = "panic", "ours");
    };
    let lines = logged(Format::Json, "info", speak).objects();
    let shown: Vec<_> = lines.iter().map(|line| [&line["level"], &line["event"], &line["target"]]).collect();
    let expected = [
        json!(["WARN", "library", "sqlx::query"]),
        json!(["WARN", "library", "rustls::conn"]),
        json!(["INFO", "library", "rosterdish"]),
        json!(["ERROR", "panic", null]),
    ];
    assert_eq!(json!(shown), json!(expected));
    assert_eq!(lines[0]["rows"], 3);
    let text = logged(Format::Pretty, "info", speak).text();
    let lines: Vec<_> = text.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
    assert_eq!(
        lines,
        [
            r#" WARN odd event="panic" rows=3 event="library" target="sqlx::query""#,
            r#" WARN closed event="library" target="rustls::conn""#,
            r#" INFO not ours event="library" target="rosterdish""#,
            r#"ERROR ours event="panic""#,
        ]
    );
}

#[test]
fn a_line_for_people_has_no_colours_where_nobody_could_see_them() {
    let lines = logged(Format::Pretty, "info", || info!(account_id = 7, "cycle finished"));
    assert!(lines.text().ends_with("INFO cycle finished account_id=7\n"), "{}", lines.text());
}

#[test]
fn libraries_are_quiet_unless_named_and_never_say_what_is_on_the_wire() {
    let speak = || {
        trace!(target: "hyper::proto", "trace");
        debug!(target: "hyper_util::client", "debug");
        warn!(target: "h2::codec", "warn");
        error!(target: "reqwest", "error");
        trace!(target: "sqlx::query", "statement");
        trace!(target: "rosterd::sync", "ours");
    };
    for (filter, said) in [
        ("trace", vec!["warn", "error", "ours"]),
        ("trace,hyper=trace,sqlx=trace", vec!["debug", "warn", "error", "statement", "ours"]),
        ("info,hyper_util=trace", vec!["debug", "warn", "error"]),
        ("error", vec!["error"]),
        ("off", vec![]),
        ("off,rosterd=trace", vec!["ours"]),
    ] {
        let lines = logged(Format::Json, filter, speak);
        let messages: Vec<_> =
            lines.objects().iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect();
        assert_eq!(messages, said, "{filter}");
    }
}

#[test]
fn neither_token_nor_body_of_a_real_exchange_is_printed_however_much_is_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let harvest = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let read = client.read(&mut [0; 4096]).unwrap();
        client
            .write_all(b"HTTP/1.1 200 OK\r\nx-name: canary-header\r\ncontent-length: 11\r\n\r\ncanary-body")
            .unwrap();
        read
    });
    _ = rustls::crypto::ring::default_provider().install_default();
    let named: Vec<_> = NOISY.iter().map(|(library, _)| format!("{library}=trace")).collect();
    let lines = logged(Format::Json, &format!("trace,{}", named.join(",")), || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let body = runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let request = client.get(format!("http://{address}/v2/users")).bearer_auth("canary-token");
            request.send().await.unwrap().text().await.unwrap()
        });
        assert_eq!(body, "canary-body");
    });
    assert!(harvest.join().unwrap() > 0);
    let text = lines.text();
    assert!(text.contains("\"target\":\"hyper"), "the libraries were heard: {text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn a_panic_is_one_line_that_repeats_no_data() {
    let me = thread::current().id();
    let before = Arc::new(panic::take_hook());
    let others = Arc::clone(&before);
    panic::set_hook(Box::new(
        move |panic| {
            if thread::current().id() == me { log_panic(panic) } else { others(panic) }
        },
    ));
    let lines = logged(Format::Json, "info", || {
        let name = String::from("Jané Canary");
        _ = panic::catch_unwind(AssertUnwindSafe(|| name[..4].len()));
        _ = panic::catch_unwind(|| panic!("a literal"));
    });
    panic::set_hook(Box::new(move |panic| before(panic)));
    let [quoting, literal] = &lines.objects()[..] else { panic!("two lines: {}", lines.text()) };
    assert_eq!((&quoting["event"], &quoting["level"]), (&json!("panic"), &json!("ERROR")));
    assert!(quoting["location"].as_str().unwrap().starts_with("src/telemetry/tests.rs:"));
    assert!(!lines.text().contains("Canary"));
    assert_eq!(literal["cause"], "a literal");
}

#[test]
fn a_filter_that_makes_no_sense_is_refused() {
    let refused = subscriber(Format::Json, "info,rosterd=loud", false, io::sink).err().unwrap();
    assert_eq!(refused.to_string(), "reading the log filter \"info,rosterd=loud\"");
}
