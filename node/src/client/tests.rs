//! Against a server that serves health only, as a node's socket does beside its own services.

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::*;

fn serve(path: &Path) -> tokio::task::JoinHandle<()> {
    let listener = UnixListener::bind(path).unwrap();
    let health = HealthServer::new(HealthService::from_health_reporter(HealthReporter::new()));
    let server = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(async move { server.serve_with_incoming(UnixListenerStream::new(listener)).await.unwrap() })
}

async fn ask(client: &Client) -> Result<(), tonic::Status> {
    HealthClient::new(client.channel()).check(HealthCheckRequest::default()).await.map(|_| ())
}

#[tokio::test]
async fn a_socket_is_connected_and_connected_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.sock");
    let first = serve(&path);
    let client = Client::over_socket(&path).await.unwrap();
    ask(&client).await.unwrap();
    // A call of an unknown service is answered, not lost.
    let refused = client.node().get_status(guantong_proto::v1::GetStatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);

    first.abort();
    let _ = first.await;
    std::fs::remove_file(&path).unwrap();
    let _second = serve(&path);
    let again = async {
        while ask(&client).await.is_err() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
}

#[tokio::test]
async fn where_nobody_listens_it_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.sock");
    for _ in 0..2 {
        let error = Client::over_socket(&path).await.unwrap_err();
        assert!(matches!(error, ConnectError::NoNode(_)), "{error}");
        assert!(error.to_string().contains("guantong serve"), "{error}");
        // Once more with the file that a crash leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path));
    }
}
