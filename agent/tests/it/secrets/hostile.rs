//! A server that stands in for everything that is told a secret, and says it aloud: it repeats each
//! request in its answer.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use super::Canaries;

/// What it has done so far.
#[derive(Default)]
pub(super) struct Heard {
    /// The first lines of the requests.
    pub(super) lines: Vec<String>,
    /// The tokens that it gave away.
    pub(super) issued: Canaries,
}

/// Starts it; it ends with the process. Returns its address. Below `/refuse` it issues no token;
/// elsewhere each token is another one.
pub(super) fn start() -> (String, Arc<Mutex<Heard>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = Arc::new(Mutex::new(Heard::default()));
    let all = Arc::clone(&heard);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let heard = Arc::clone(&all);
            thread::spawn(move || answer(stream, &heard));
        }
    });
    (address, heard)
}

/// Answers one request. What breaks off is let go.
fn answer(mut stream: TcpStream, heard: &Mutex<Heard>) -> Option<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head.split("content-length: ").nth(1);
    let length: usize = length
        .and_then(|rest| rest.split("\r\n").next()?.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    request.extend_from_slice(&body);
    let text = String::from_utf8_lossy(&request).into_owned();
    let line = text.lines().next()?.to_owned();
    let (status, answer) = {
        let mut heard = heard.lock().unwrap();
        heard.lines.push(line.clone());
        let count = heard.lines.len();
        if line.contains("/token") && !line.contains("/refuse") {
            let token = heard.issued.new();
            (200, json!({"access_token": token, "expires_in": "3600"}))
        } else if line.contains("/token") {
            (
                401,
                json!({"error": "invalid_client", "error_description": text}),
            )
        } else {
            // One after the other, so that each connection meets several.
            let status = [401, 403, 400, 500, 429, 200][count % 6];
            (
                status,
                json!({"error_code": "PERMISSION_DENIED", "message": text, "state": text}),
            )
        }
    };
    let answer = answer.to_string();
    write!(
        stream,
        "HTTP/1.1 {status} Told\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{answer}",
        answer.len()
    )
    .ok()
}
