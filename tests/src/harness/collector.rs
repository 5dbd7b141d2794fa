//! A collector of traces that keeps every byte that it is sent and understands none: for tests that search what leaves
//! a node. It answers with so much HTTP/2 that clients go on sending, and never with an answer to a request.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// An empty SETTINGS, and room for 2 GiB on the connection.
const PREFACE: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xfe, 0, 0];

/// Listens until the test ends.
pub struct Collector {
    address: String,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    /// Starts on a free port of this machine.
    pub async fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let all = bytes.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let all = all.clone();
                tokio::spawn(async move {
                    let mut piece = vec![0; 64 * 1024];
                    let _ = stream.write_all(PREFACE).await;
                    while let Ok(read @ 1..) = stream.read(&mut piece).await {
                        all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..read]);
                    }
                });
            }
        });
        Collector { address, bytes }
    }

    /// For `telemetry.otlp_endpoint`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Everything that came, of all connections one after another.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
