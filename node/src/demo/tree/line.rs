//! A line between two nodes that runs through this process, so that it can be cut. It passes bytes on and never looks
//! at them: what it carries is encrypted.

use anyhow::{Context as _, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::HOST;
use super::process::Port;

/// How a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It carries.
    Whole,
    /// It carries nothing any more, and tells neither end: connections stay open.
    Silent,
    /// Connections break, and new ones fail.
    Cut,
}

/// A line; dropping it cuts it for ever.
pub(super) struct CuttableLine {
    port: u16,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl CuttableLine {
    /// Listens on a port of its own, and passes connections on to `target` as it is at their time.
    pub(super) async fn open(target: Port) -> Result<CuttableLine> {
        let listener = TcpListener::bind((HOST, 0)).await.context("no free port for a line")?;
        let port = listener.local_addr()?.port();
        let (state, now) = watch::channel(State::Whole);
        let task = tokio::spawn(pass_on(listener, target, now));
        Ok(CuttableLine { port, state, task })
    }

    /// Where the child dials.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts, silences or mends the line.
    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }
}

impl Drop for CuttableLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(listener: TcpListener, target: Port, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (Ok((child, _)), Some(port)) = (accepted, target.get()) else { continue };
                let state = state.clone();
                if *state.borrow() != State::Cut {
                    connections.spawn(carry(child, port, state));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until an end closes it or the line is cut. One that fell silent never carries again.
async fn carry(mut child: TcpStream, port: u16, mut state: watch::Receiver<State>) {
    let Ok(mut parent) = TcpStream::connect((HOST, port)).await else { return };
    let carried = async {
        // Small frames must not wait for each other here; the nodes themselves do the same.
        child.set_nodelay(true)?;
        parent.set_nodelay(true)?;
        copy_bidirectional(&mut child, &mut parent).await
    };
    // How a connection ended is for the nodes to notice.
    tokio::select! {
        _ = carried => return,
        _ = state.wait_for(|state| *state != State::Whole) => {}
    }
    // Both sockets stay open until the line is cut or mended.
    let _ = state.wait_for(|state| *state != State::Silent).await;
}
