//! A whole node in this process, with a parent that is not there.

use std::path::PathBuf;

use guantong_proto::v1;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::client::Client;
use crate::identity::pki::dir::AuthorityDir;
use crate::identity::pki::{Request, Validity};
use crate::identity::{Subject, TrustDomain};

const PATIENCE: Duration = Duration::from_secs(30);

/// A township's configuration and certificate in a directory.
fn township(dir: &Path, name: &str) -> Config {
    let authority = match AuthorityDir::open(&dir.join("authority")) {
        Ok(authority) => authority,
        Err(_) => {
            AuthorityDir::create(&dir.join("authority"), TrustDomain::default(), Validity::days(2), false)
                .unwrap()
        }
    };
    let subject = Subject::node("220822101".parse().unwrap()).unwrap();
    let files = dir.join(name);
    authority.issue(&Request::new(subject, Validity::days(1)), &files, true).unwrap();
    let (data, files) = (dir.join("data"), files.display());
    // Nothing listens on port 1 of the loopback address.
    let text = format!(
        "division = \"220822101\"\ndata_dir = \"{}\"\nsocket = \"{}\"\n\
         [parent]\ndivision = \"220822\"\naddress = \"127.0.0.1:1\"\n\
         [tls]\ncertificate = \"{files}/certificate.pem\"\nkey = \"{files}/key.pem\"\n\
         authority = \"{files}/authority.pem\"\nrevocation_list = \"{files}/revocations.pem\"\n",
        data.display(),
        dir.join(format!("{name}.sock")).display(),
    );
    let path: PathBuf = dir.join(format!("{name}.toml"));
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap()
}

async fn run_until(config: Config, stop: oneshot::Receiver<()>) -> anyhow::Result<()> {
    let told_to_stop = async {
        let _ = stop.await;
        "the test"
    };
    serve(&config, told_to_stop, signal(SignalKind::hangup()).unwrap()).await
}

/// Asks until the answer is as wanted.
async fn until<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap()
}

#[tokio::test]
async fn a_node_without_its_parent_serves_shows_its_attempts_and_stops_in_good_order() {
    let dir = tempfile::tempdir().unwrap();
    let config = township(dir.path(), "town");
    let socket = config.socket();
    let (stop, stopped) = oneshot::channel();
    let node = tokio::spawn(run_until(config, stopped));
    let client = until(async || Client::over_socket(&socket).await.ok()).await;

    let health = HealthClient::new(client.channel()).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    let link = until(async || {
        let status = client.node().get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
        status.links.into_iter().find(|link| link.attempt_count >= 2 && link.next_attempt_time.is_some())
    })
    .await;
    assert_eq!((link.connected, link.peer_is_parent, link.address.as_str()), (false, true, "127.0.0.1:1"));
    assert!(link.last_error.contains("nothing listens"), "{}", link.last_error);

    // The same store cannot be opened twice; nor does the attempt disturb the first node.
    let (_never, second_stop) = oneshot::channel();
    let second = run_until(township(dir.path(), "second"), second_stop).await.unwrap_err().to_string();
    assert!(second.contains("another guantong is running on this store"), "{second}");
    client.node().get_status(v1::GetStatusRequest {}).await.unwrap();

    stop.send(()).unwrap();
    let ended = tokio::time::timeout(PATIENCE, node).await.unwrap().unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_certificate_of_another_node_is_refused_before_anything_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = township(dir.path(), "town");
    config.division = "220822102".parse().unwrap();
    let (_never, stop) = oneshot::channel();
    let refused = run_until(config.clone(), stop).await.unwrap_err().to_string();
    assert!(refused.contains("node/220822101000") && refused.contains("node/220822102000"), "{refused}");
    assert!(!config.data_dir.exists());
}
