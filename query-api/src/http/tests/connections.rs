//! Connections that are idle end, and others do not; heads, and answers that nobody reads, are
//! bounded.

use std::net::SocketAddr;

use prometheus::IntGauge;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::http::limits::CLIENT_STREAMS_MAX;
use crate::http::server::{ServerConfig, serve};

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_millis(100);

/// Longer than anything takes that has to happen.
const LIMIT: Duration = Duration::from_secs(20);

/// How long a stop waits: longer than any test does.
const DRAIN: Duration = Duration::from_secs(60);

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2_EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A connection to what is served, which runs until the sender is dropped.
async fn connect(served: &Served) -> (TcpStream, watch::Sender<bool>) {
    connect_counted(served, open_connections()).await
}

fn open_connections() -> IntGauge {
    IntGauge::new("open", "connections").unwrap()
}

/// The same, where `open` counts the open connections.
async fn connect_counted(served: &Served, open: IntGauge) -> (TcpStream, watch::Sender<bool>) {
    let (address, go_on, _) = listen(served, IDLE, DRAIN, open).await;
    (TcpStream::connect(address).await.unwrap(), go_on)
}

/// Serves on an address until the sender is dropped, and then says whether all was answered.
async fn listen(
    served: &Served,
    idle_timeout: Duration,
    drain_timeout: Duration,
    open: IntGauge,
) -> (SocketAddr, watch::Sender<bool>, JoinHandle<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = ServerConfig {
        max_connections: 2,
        idle_timeout,
        drain_timeout,
    };
    let (go_on, stop) = watch::channel(false);
    let server = tokio::spawn(serve(listener, served.router.clone(), config, open, stop));
    (address, go_on, server)
}

/// What the server sends until it closes the connection.
async fn all(mut stream: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut said));
    read.await.expect("the connection is closed").unwrap();
    said
}

#[tokio::test]
async fn a_connection_without_a_whole_head_is_closed() {
    let served = Served::new();
    for sent in [
        &b""[..],
        b"PRI",
        b"GET /health/live HTTP/1.1\r\nHost: a\r\n",
    ] {
        let (mut stream, _go_on) = connect(&served).await;
        stream.write_all(sent).await.unwrap();
        assert_eq!(all(stream).await, b"", "{sent:?}");
    }
}

#[tokio::test]
async fn a_connection_is_closed_some_time_after_its_last_answer() {
    let (mut stream, _go_on) = connect(&Served::new()).await;
    let request = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let said = String::from_utf8(all(stream).await).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    assert!(said.ends_with(r#"{"status":"live"}"#), "{said}");
}

/// A head of this many bytes that does not end yet.
fn head(bytes: usize) -> Vec<u8> {
    let mut head = b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Long: ".to_vec();
    head.resize(bytes, b'a');
    head
}

#[tokio::test]
async fn a_head_that_is_too_long_is_431_and_the_next_request_is_answered() {
    let (mut stream, _go_on) = connect(&Served::new()).await;
    let address = stream.peer_addr().unwrap();
    // No more than is read: the rest would have the connection reset.
    stream.write_all(&head(64 << 10)).await.unwrap();
    let said = String::from_utf8(all(stream).await).unwrap();
    assert!(said.starts_with("HTTP/1.1 431 "), "{said}");

    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = head(32 << 10);
    request.extend_from_slice(b"\r\n\r\n");
    stream.write_all(&request).await.unwrap();
    let said = String::from_utf8(all(stream).await).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

#[tokio::test]
async fn an_idle_http2_connection_is_told_to_go_and_closed() {
    let (mut stream, _go_on) = connect(&Served::new()).await;
    stream.write_all(HTTP2_PREFACE).await.unwrap();
    stream.write_all(HTTP2_EMPTY_SETTINGS).await.unwrap();
    let said = all(stream).await;
    // Frames: length (3 bytes), type, flags, stream (4 bytes), payload.
    let mut types = Vec::new();
    let mut rest = said.as_slice();
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        types.push(head[3]);
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        rest = &after[usize::try_from(length).unwrap()..];
    }
    const GOAWAY: u8 = 7;
    assert!(types.contains(&GOAWAY), "{types:?}");
}

#[tokio::test]
async fn a_connection_with_a_request_under_way_is_not_idle() {
    let served = Served::new();
    // The answer comes when the wait for the outcome is over, after several times the
    // allowed idle time.
    served.application.plant(Fault::Deaf);
    let (mut stream, _go_on) = connect(&served).await;
    let body = r#"{"title":"A","price":1}"#;
    let request = format!(
        "POST /api/tickets HTTP/1.1\r\nHost: a\r\nX-User-Id: u\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let said = String::from_utf8(all(stream).await).unwrap();
    assert!(said.starts_with("HTTP/1.1 504 "), "{said}");
}

#[tokio::test]
async fn a_connection_counts_as_open_until_it_ends() {
    let open = open_connections();
    let (mut stream, _go_on) = connect_counted(&Served::new(), open.clone()).await;
    let request = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut first = [0];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(open.get(), 1);
    all(stream).await;
    // The client sees the end a moment before the server drops the connection.
    let gone = async {
        while open.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
}

/// A client that has so many bytes of each answer sent to it before it reads any.
fn http2_client(window_bytes: u32) -> reqwest::Client {
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .http2_initial_stream_window_size(window_bytes)
        .no_proxy();
    client.build().unwrap()
}

#[tokio::test]
async fn answers_that_nobody_reads_count_as_requests() {
    const MAX_REQUESTS: usize = 4;
    for window_bytes in [0, 1] {
        let served = Served::of(&Service::ALL, MAX_REQUESTS);
        served.ticket("Concert").await;
        let (address, _go_on, _) = listen(&served, LIMIT, DRAIN, open_connections()).await;
        let client = http2_client(window_bytes);
        let get = async || {
            let url = format!("http://{address}/api/tickets?limit=200");
            client.get(url).send().await.unwrap()
        };
        let mut unread = Vec::new();
        for _ in 0..MAX_REQUESTS {
            let answer = get().await;
            assert_eq!(answer.status(), 200);
            unread.push(answer);
        }
        assert_eq!(get().await.status(), 503, "window: {window_bytes}");
        // On other connections too.
        let other = http2_client(1 << 20);
        let url = format!("http://{address}/api/tickets");
        let refused = other.get(&url).send().await.unwrap();
        assert_eq!(refused.status(), 503);
        drop(unread);
        let answered = async {
            while other.get(&url).send().await.unwrap().status() != 200 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let answered = tokio::time::timeout(LIMIT, answered).await;
        answered.expect("there is room again");
    }
}

#[tokio::test]
async fn a_connection_has_so_many_answers_that_nobody_reads_and_no_more() {
    let served = Served::new();
    let (address, _go_on, _) = listen(&served, LIMIT, DRAIN, open_connections()).await;
    let client = http2_client(0);
    let get = async |client: &reqwest::Client| {
        let url = format!("http://{address}/health/live");
        client.get(url).send().await.unwrap()
    };
    let mut unread = Vec::new();
    for _ in 0..CLIENT_STREAMS_MAX {
        let answer = get(&client).await;
        assert_eq!(answer.status(), 200);
        unread.push(answer);
    }
    assert_eq!(get(&client).await.status(), 503);
    let shown = served.get("", "/metrics").await.text;
    let refused = "ticketing_http_refused_total{reason=\"streams\"} 1\n";
    assert!(shown.contains(refused), "{shown}");
    // What instances ask for does not count here; without their key it is refused as such.
    let url = format!("http://{address}/internal/v1/read");
    let internal = client.post(url).send().await.unwrap();
    assert_eq!(internal.status(), 401);
    assert_eq!(get(&http2_client(0)).await.status(), 200);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_half_a_request_or_for_who_does_not_read() {
    let served = Served::new();
    let (address, go_on, server) = listen(&served, LIMIT, DRAIN, open_connections()).await;
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&head(100)).await.unwrap();
    let url = format!("http://{address}/health/live");
    let unread = http2_client(0).get(url).send().await.unwrap();
    assert_eq!(unread.status(), 200);
    go_on.send(true).unwrap();
    let stopped = tokio::time::timeout(LIMIT, server).await;
    assert!(stopped.expect("it does not wait").unwrap());
}

#[tokio::test]
async fn a_stop_that_has_no_time_tells_whether_requests_were_under_way() {
    for is_under_way in [false, true] {
        let served = Served::new();
        served.application.plant(Fault::Deaf);
        let (address, go_on, server) = listen(
            &served,
            LIMIT,
            Duration::from_millis(50),
            open_connections(),
        )
        .await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        if is_under_way {
            let body = r#"{"title":"A","price":1}"#;
            let head = "POST /api/tickets HTTP/1.1\r\nHost: a\r\nX-User-Id: u\r\nContent-Length:";
            let request = format!("{head} {}\r\n\r\n{body}", body.len());
            stream.write_all(request.as_bytes()).await.unwrap();
            while !served.application.anyone_waits() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        } else {
            stream.write_all(&head(100)).await.unwrap();
        }
        go_on.send(true).unwrap();
        let stopped = tokio::time::timeout(LIMIT, server).await;
        assert_eq!(stopped.unwrap().unwrap(), !is_under_way);
    }
}
