//! A line to a server that can be cut, restored, and made to lose an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(super) struct Line {
    server: u16,
    port: u16,
    lose: Arc<AtomicBool>,
    carrying: Option<JoinHandle<()>>,
}

impl Line {
    /// A line to a port of this machine.
    pub(super) async fn to(server: u16) -> Line {
        let mut line = Line { server, port: 0, lose: Arc::default(), carrying: None };
        line.restore().await;
        line
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Everything under way is lost, and nobody gets through any more.
    pub(super) async fn cut(&mut self) {
        if let Some(carrying) = self.carrying.take() {
            carrying.abort();
            let _ = carrying.await;
        }
    }

    /// The next answer that says that something was committed is lost, and everything after it.
    pub(super) fn lose_answer_to_next_commit(&self) {
        self.lose.store(true, Ordering::SeqCst);
    }

    pub(super) async fn restore(&mut self) {
        self.cut().await;
        self.lose.store(false, Ordering::SeqCst);
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let (server, lose) = (self.server, self.lose.clone());
        self.carrying = Some(tokio::spawn(async move {
            // Ends with this task, and cuts all it carries.
            let mut carried = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                carried.spawn(carry(client, server, lose.clone()));
            }
        }));
    }
}

async fn carry(client: TcpStream, server: u16, lose: Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from_server.read(&mut buffer).await?;
            let answer = &buffer[..count];
            if count == 0 || lose.load(Ordering::SeqCst) && answer.windows(7).any(|w| w == b"COMMIT\0") {
                return std::io::Result::Ok(());
            }
            to_client.write_all(answer).await?;
        }
    };
    // Whoever ends first ends the line, both ways.
    tokio::select! { _ = up => {} _ = down => {} }
}
