//! The line to the workspace: HTTP/1.1, one call after the other on each connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{self, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::line::Line;
use super::trap::{Point, Step, Trap};

const HEAD_END: &[u8] = b"\r\n\r\n";
const LENGTH: &str = "content-length:";
const TOKEN: &str = "\"idempotency_token\":\"";

/// A line to the workspace, for a worker of one story.
pub(super) async fn line(workspace: SocketAddr, trap: &Arc<Trap>) -> Line {
    let trap = Arc::clone(trap);
    let first = Arc::new(Mutex::new(None));
    Line::to(workspace, move |worker, workspace| {
        carry(worker, workspace, Arc::clone(&first), Arc::clone(&trap))
    })
    .await
}

async fn carry(
    worker: TcpStream,
    workspace: TcpStream,
    first: Arc<Mutex<Option<String>>>,
    trap: Arc<Trap>,
) -> io::Result<()> {
    let (mut worker, mut workspace) = (BufReader::new(worker), BufReader::new(workspace));
    loop {
        let call = message(&mut worker).await?;
        let step = step_of(&call, &first);
        match step {
            Some(step) => trap.meet(Point::Before(step)).await,
            None => trap.hold().await,
        }
        workspace.write_all(call.as_bytes()).await?;
        let reply = message(&mut workspace).await?;
        // A start and its reply are two steps; of the others it is the reply that counts.
        if step == Some(Step::Start) {
            trap.meet(Point::After(Step::Start)).await;
            trap.meet(Point::Before(Step::Reply)).await;
        } else {
            trap.hold().await;
        }
        let passed = step.map(|step| match step {
            Step::Start => Point::After(Step::Reply),
            step => Point::After(step),
        });
        if let Some(point) = passed {
            trap.approach(point);
        }
        worker.write_all(reply.as_bytes()).await?;
        if let Some(point) = passed {
            trap.meet(point).await;
        }
    }
}

/// What a call is for. `first` is the name of the first attempt, once it is known.
fn step_of(call: &str, first: &Mutex<Option<String>>) -> Option<Step> {
    let target = call.split(' ').nth(1)?;
    let path = target.split('?').next()?;
    match path.split("/jobs/").nth(1)? {
        "runs/submit" => {
            let token = call.split_once(TOKEN)?.1.split('"').next()?;
            let mut first = first.lock().expect("unpoisoned");
            let first = first.get_or_insert_with(|| token.to_owned());
            Some(if first == token {
                Step::Start
            } else {
                Step::Again
            })
        }
        "runs/get" | "runs/list" => Some(Step::Poll),
        "runs/get-output" => Some(Step::Output),
        _ => None,
    }
}

/// A request or a reply, head and body.
async fn message(from: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(HEAD_END) {
        text.push(from.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix(LENGTH));
    let length: usize = length.map_or(0, |length| length.trim().parse().expect("a number"));
    let body = text.len();
    text.resize(body + length, 0);
    from.read_exact(&mut text[body..]).await?;
    Ok(String::from_utf8(text).expect("both speak UTF-8"))
}
