//! A producer that speaks AMQP byte by byte: what it sends no client library would.
//!
//! It publishes one message after the other, each confirmed, and gives every wait up after a while.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

/// A broker that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
/// RabbitMQ's largest frame by default, in bytes.
const FRAME_BYTES: usize = 128 << 10;

const METHOD: u8 = 1;
const CONTENT_HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xCE;

const START: [u8; 4] = [0, 10, 0, 10];
const START_OK: [u8; 4] = [0, 10, 0, 11];
const TUNE: [u8; 4] = [0, 10, 0, 30];
const TUNE_OK: [u8; 4] = [0, 10, 0, 31];
const OPEN: [u8; 4] = [0, 10, 0, 40];
const OPEN_OK: [u8; 4] = [0, 10, 0, 41];
const CHANNEL_OPEN: [u8; 4] = [0, 20, 0, 10];
const CHANNEL_OPEN_OK: [u8; 4] = [0, 20, 0, 11];
const CONFIRM_SELECT: [u8; 4] = [0, 85, 0, 10];
const CONFIRM_SELECT_OK: [u8; 4] = [0, 85, 0, 11];
const PUBLISH: [u8; 4] = [0, 60, 0, 40];
const ACK: [u8; 4] = [0, 60, 0, 80];

/// Its connection, with one channel.
pub struct RawProducer {
    socket: TcpStream,
}

impl RawProducer {
    /// Logs in as the URL says.
    pub async fn connect(url: &str) -> io::Result<Self> {
        let url: Url = url.parse().map_err(io::Error::other)?;
        let host = url.host_str().unwrap_or("127.0.0.1");
        let port = url.port().unwrap_or(5672);
        let socket = TcpStream::connect((host, port)).await?;
        let mut producer = Self { socket };
        producer.socket.write_all(b"AMQP\0\0\x09\x01").await?;
        producer.expect(START).await?;
        let login = format!("\0{}\0{}", url.username(), url.password().unwrap_or(""));
        let start = [
            &[0; 4][..],
            &short(b"PLAIN"),
            &long(login.as_bytes()),
            &short(b"en_US"),
        ];
        producer.method(0, START_OK, &start.concat()).await?;
        producer.expect(TUNE).await?;
        let frame = u32::try_from(FRAME_BYTES).expect("it is no larger");
        let tune = [&[0, 9][..], &frame.to_be_bytes(), &[0, 0]];
        producer.method(0, TUNE_OK, &tune.concat()).await?;
        let vhost = url.path().trim_start_matches('/').replace("%2f", "/");
        let open = [&short(vhost.as_bytes())[..], &[0, 0]].concat();
        producer.method(0, OPEN, &open).await?;
        producer.expect(OPEN_OK).await?;
        producer.method(1, CHANNEL_OPEN, &[0]).await?;
        producer.expect(CHANNEL_OPEN_OK).await?;
        producer.method(1, CONFIRM_SELECT, &[0]).await?;
        producer.expect(CONFIRM_SELECT_OK).await?;
        Ok(producer)
    }

    /// Publishes a message and waits for its confirm. The properties begin with their flags.
    pub async fn publish(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        properties: &[u8],
        body: &[u8],
    ) -> io::Result<()> {
        let to = [
            &[0, 0][..],
            &short(exchange.as_bytes()),
            &short(routing_key),
            &[0],
        ];
        self.method(1, PUBLISH, &to.concat()).await?;
        let size = u64::try_from(body.len()).expect("it is in memory");
        let header = [&[0, 60, 0, 0][..], &size.to_be_bytes(), properties].concat();
        self.frame(CONTENT_HEADER, 1, &header).await?;
        for part in body.chunks(FRAME_BYTES - 8) {
            self.frame(BODY, 1, part).await?;
        }
        self.expect(ACK).await
    }

    async fn method(&mut self, channel: u16, method: [u8; 4], fields: &[u8]) -> io::Result<()> {
        let content = [&method[..], fields].concat();
        self.frame(METHOD, channel, &content).await
    }

    async fn frame(&mut self, kind: u8, channel: u16, content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len()).expect("a frame is short");
        let channel = channel.to_be_bytes();
        let frame = [&[kind][..], &channel, &size.to_be_bytes(), content, &[END]];
        self.socket.write_all(&frame.concat()).await
    }

    /// Reads frames up to this method; any other one is an error that tells what it says.
    async fn expect(&mut self, wanted: [u8; 4]) -> io::Result<()> {
        let reading = async {
            loop {
                let mut head = [0; 7];
                self.socket.read_exact(&mut head).await?;
                let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
                let mut content = vec![0; usize::try_from(size).expect("it fits") + 1];
                self.socket.read_exact(&mut content).await?;
                match (head[0], content.starts_with(&wanted)) {
                    (METHOD, true) => return Ok(()),
                    (METHOD, false) => {
                        let said = String::from_utf8_lossy(&content).into_owned();
                        return Err(io::Error::other(said));
                    }
                    _ => {}
                }
            }
        };
        timeout(PATIENCE, reading).await?
    }
}

/// What is preceded by its length of one byte.
pub fn short(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short string is short");
    [&[length], text].concat()
}

/// What is preceded by its length of four bytes.
pub fn long(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("it is in memory");
    [&length.to_be_bytes(), content].concat()
}
