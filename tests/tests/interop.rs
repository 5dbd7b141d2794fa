//! Ordinary gRPC clients find their way: health and reflection over the local socket and over TLS, and errors with the
//! details that Google's API guide names.

#![allow(clippy::unwrap_used, clippy::panic)]

use guantong::demo::tree::NodeSpec;
use guantong::identity::pki::{Request, Validity};
use guantong::identity::{IdentityFiles, Subject};
use guantong_proto::v1;
use guantong_tests::harness::{Fleet, division};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;

const COUNTY: &str = "220822";

async fn is_healthy(channel: Channel) {
    let request = HealthCheckRequest { service: String::new() };
    let answer = HealthClient::new(channel).check(request).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
}

async fn services(channel: Channel) -> Vec<String> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tokio_stream::iter([request]);
    let mut answers =
        ServerReflectionClient::new(channel).server_reflection_info(requests).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response.unwrap() {
        MessageResponse::ListServicesResponse(list) => list.service.into_iter().map(|s| s.name).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_reflection_and_error_details() {
    let fleet = Fleet::start([NodeSpec::top(division(COUNTY))]).await;
    let local = fleet.client(COUNTY);
    let subject = Subject::Operator("interop".to_owned());
    let dir = fleet.path("operator");
    fleet.tree.authority().issue(&Request::new(subject, Validity::days(1)), &dir, false).unwrap();
    let address = fleet.tree.address(division(COUNTY)).unwrap();
    let remote = guantong::client::Client::over_tls(&address, &IdentityFiles::in_dir(&dir)).await.unwrap();
    for client in [&local, &remote] {
        is_healthy(client.channel()).await;
        let services = services(client.channel()).await;
        for service in ["RecordService", "ConflictService", "NodeService", "ExchangeService"] {
            assert!(services.contains(&format!("guantong.v1.{service}")), "{services:?}");
        }
    }
    errors_have_details(&fleet).await;
}

async fn errors_have_details(fleet: &Fleet) {
    let name = "divisions/220822000000/cases/1";
    let wrong = v1::Case { involved_count: Some(-1), ..v1::Case::default() };
    let status = fleet.write(COUNTY, name, &wrong).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "case.involved_count");
    assert_eq!(details.error_info().unwrap().domain, "guantong");

    let request = v1::GetRecordRequest { name: name.to_owned() };
    let missing = fleet.client(COUNTY).records().get_record(request).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);
    assert_eq!(missing.get_error_details().error_info().unwrap().metadata["name"], name);
    for bad in ["divisions/999999999999/cases/1", "divisions/220822000000/horses/1", "cases/1"] {
        let status = fleet.write(COUNTY, bad, &v1::Case::default()).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{bad}: {status:?}");
        assert!(status.get_error_details().bad_request().is_some(), "{bad}: {status:?}");
    }
    stale_and_repeated(fleet).await;
}

/// A stale etag is refused, and a request that is sent twice is done once.
async fn stale_and_repeated(fleet: &Fleet) {
    let name = "divisions/220822000000/cases/2".to_owned();
    let title = |text: &str| v1::Case { title: Some(text.to_owned()), ..v1::Case::default() };
    let first = fleet.write(COUNTY, &name, &title("甲")).await.unwrap();
    let write = |etag: &str, text: &str, request_id: &str| v1::WriteRecordRequest {
        record: Some(v1::Record {
            name: name.clone(),
            fields: prost::Message::encode_to_vec(&title(text)).into(),
            etag: etag.to_owned(),
            ..v1::Record::default()
        }),
        request_id: request_id.to_owned(),
        ..v1::WriteRecordRequest::default()
    };
    let mut records = fleet.client(COUNTY).records();
    let done = records.write_record(write(&first.etag, "乙", "r-1")).await.unwrap().into_inner();
    let again = records.write_record(write(&first.etag, "乙", "r-1")).await.unwrap().into_inner();
    assert_eq!(done.etag, again.etag, "the same request twice is one");
    let stale = records.write_record(write(&first.etag, "丙", "r-2")).await.unwrap_err();
    assert_eq!(stale.code(), tonic::Code::Aborted, "{stale:?}");
    let other = records.write_record(write(&done.etag, "丁", "r-1")).await.unwrap_err();
    assert_eq!(other.code(), tonic::Code::InvalidArgument, "an id is for one request: {other:?}");
}
