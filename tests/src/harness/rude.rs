//! HTTP/2 by hand, for what no library of ours would do: to open more calls than are allowed, to take no answers, to say
//! nothing any more. It knows as much of the protocol as that needs.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::wire::{PREFACE, shake_hands};

/// Kinds of frames.
pub const DATA: u8 = 0;
/// A call, or the beginning of its answer.
pub const HEADERS: u8 = 1;
/// The end of a call before its time.
pub const RESET: u8 = 3;
const SETTINGS: u8 = 4;
/// A question whether somebody is there.
pub const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The setting that says how many bytes of an answer are taken before more room is granted.
const INITIAL_WINDOW: u16 = 4;

/// A frame.
#[derive(Debug)]
pub struct Frame {
    /// Which.
    pub kind: u8,
    /// Of which call; 0: of the connection.
    pub stream: u32,
    /// What it holds.
    pub payload: Vec<u8>,
}

/// A connection.
pub struct Rude {
    stream: TlsStream<TcpStream>,
    answers_pings: bool,
}

impl Rude {
    /// Connects with the certificate of a folder; takes so many bytes of each answer and no more.
    ///
    /// # Errors
    /// As the system, or the library of TLS.
    pub async fn connect(address: &str, authority: &Path, dir: &Path, window: u32) -> io::Result<Rude> {
        let stream = shake_hands(address, authority, Some(dir), &[&rustls::version::TLS13], &["h2"]).await?;
        let mut rude = Rude { stream, answers_pings: true };
        rude.stream.write_all(PREFACE).await?;
        let [a, b] = INITIAL_WINDOW.to_be_bytes();
        let [c, d, e, f] = window.to_be_bytes();
        rude.send(SETTINGS, 0, 0, &[a, b, c, d, e, f]).await?;
        Ok(rude)
    }

    /// Answers no more whether it is there.
    pub fn fall_silent(&mut self) {
        self.answers_pings = false;
    }

    /// Begins a call of a method with an empty message; without `whole` its message never comes.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn call(&mut self, stream: u32, path: &str, whole: bool) -> io::Result<()> {
        let mut headers = vec![0x83, 0x87];
        let mut put = |name: &[u8], value: &str| {
            headers.extend_from_slice(name);
            headers.push(value.len() as u8);
            headers.extend_from_slice(value.as_bytes());
        };
        put(&[0x04], path);
        put(&[0x01], "localhost");
        put(&[0x0f, 0x10], "application/grpc");
        put(b"\x00\x02te", "trailers");
        self.send(HEADERS, END_HEADERS, stream, &headers).await?;
        if whole {
            self.send(DATA, END_STREAM, stream, &[0; 5]).await?;
        }
        self.stream.flush().await
    }

    /// The next frame. Settings are agreed to, and pings answered.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn next(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, s, t, u, v] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await?;
        if flags & ACK == 0 && (kind == SETTINGS || kind == PING && self.answers_pings) {
            let said: &[u8] = if kind == PING { &payload } else { &[] };
            let said = said.to_vec();
            self.send(kind, ACK, 0, &said).await?;
            self.stream.flush().await?;
        }
        Ok(Frame { kind, stream: u32::from_be_bytes([s & 0x7f, t, u, v]), payload })
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        let [s, t, u, v] = stream.to_be_bytes();
        let frame = [&[a, b, c, kind, flags, s, t, u, v], payload].concat();
        self.stream.write_all(&frame).await
    }
}
