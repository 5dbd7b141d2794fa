//! A node's services in this process, on a store of their own, with something in every list: what callers send is given
//! to them as bytes. It must never open a port.

use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes};
use guantong_gateway::division::Division;
use guantong_gateway::engine::{Engine, Environment};
use guantong_gateway::invitation::FINGERPRINT_BYTES;
use guantong_gateway::service::{
    Caller, Checkpoints, Enrolment, Links, NodeInfo, Registrar, RegistrarError, Shown, Who, routes,
};
use guantong_gateway::store::{Options, Store};
use guantong_proto::v1;
use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::service::Routes;
use tonic::{Code, Request, Status};

const OWN: &str = "220822";
pub(super) const HOME: &str = "220822101000";
/// A node below, not the one whose records are there.
pub(super) const CHILD: &str = "220822102000";
/// Messages of one call.
const MESSAGES_MAX: usize = 64;
/// A call that takes longer will never end.
const CALL_MAX: std::time::Duration = std::time::Duration::from_secs(20);
/// Methods whose answers go on until somebody ends them.
const ENDLESS: [&str; 3] = ["ReadChanges", "StreamAggregates", "WatchTrust"];

/// The services, and what they run on.
pub(super) struct Office {
    runtime: Runtime,
    routes: Routes,
    _folder: tempfile::TempDir,
}

/// What others call.
fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(guantong_proto::FILE_DESCRIPTOR_SET).unwrap();
    let ours = pool.services().filter(|service| service.package_name() == "guantong.v1");
    ours.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// The messages of a call: of a stream, each with its length before it.
fn messages(method: &MethodDescriptor, mut bytes: Bytes) -> Vec<Bytes> {
    if !method.is_client_streaming() {
        return vec![bytes];
    }
    let next = || {
        let length = prost::decode_length_delimiter(&mut bytes).ok()?;
        Some(bytes.split_to(length.min(bytes.len())))
    };
    std::iter::from_fn(next).take(MESSAGES_MAX).collect()
}

/// Everybody who can call: a local program, a partner that may write, a node below, a partner without a grant.
pub(super) fn callers() -> [Caller; 4] {
    let caller = |who| Caller { who, address: "127.0.0.1".to_owned() };
    [
        caller(Who::Local),
        caller(Who::Partner("court".to_owned())),
        caller(Who::Node(Division::parse(CHILD).unwrap())),
        caller(Who::Partner("nobody".to_owned())),
    ]
}

impl Office {
    pub(super) fn open() -> Office {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite").to_string_lossy().into_owned();
        let routes = runtime.block_on(start(&path));
        let office = Office { runtime, routes, _folder: folder };
        office.fill();
        office
    }

    /// What can be called.
    pub(super) fn methods(&self) -> Vec<MethodDescriptor> {
        let offered = |method: &MethodDescriptor| {
            let [local, ..] = callers();
            let answer = self.call(method, local, Bytes::new());
            answer.err().is_none_or(|status| status.code() != Code::Unimplemented)
        };
        methods().into_iter().filter(offered).collect()
    }

    /// One call: its answer as bytes, the first of several.
    pub(super) fn call(
        &self,
        method: &MethodDescriptor,
        caller: Caller,
        message: Bytes,
    ) -> Result<Bytes, Status> {
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let mut request = Request::new(tokio_stream::iter(messages(method, message)));
        request.extensions_mut().insert(caller);
        let call = async {
            let mut grpc = Grpc::new(self.routes.clone()).max_decoding_message_size(usize::MAX);
            grpc.ready().await.unwrap();
            let answer = grpc.streaming(request, path.parse().unwrap(), Raw).await?;
            if ENDLESS.contains(&method.name()) {
                return Ok(Bytes::new());
            }
            let mut answers = answer.into_inner();
            let first = answers.message().await?.unwrap_or_default();
            while answers.message().await?.is_some() {}
            Ok(first)
        };
        let called = self.runtime.block_on(async { tokio::time::timeout(CALL_MAX, call).await });
        called.unwrap_or_else(|_| panic!("{} never ends", method.full_name()))
    }

    /// A call of a local program that must succeed.
    fn done(&self, method: &str, message: &impl Message) {
        let found = methods().into_iter().find(|known| known.name() == method).unwrap();
        let [local, ..] = callers();
        let done = self.call(&found, local, message.encode_to_vec().into());
        assert!(done.is_ok(), "{method}: {done:?}");
    }

    /// Three of everything that is listed.
    fn fill(&self) {
        for n in 1..=3 {
            self.fill_records(n);
            let grant = v1::Grant {
                name: format!("grants/{}", ["court", "water", "press"][n - 1]),
                scope: HOME.into(),
                level: v1::GrantLevel::Write.into(),
                units: vec!["court".into()],
                ..v1::Grant::default()
            };
            self.done("UpdateGrant", &v1::UpdateGrantRequest { grant: Some(grant), allow_missing: true });
            let invitation = v1::Invitation { division: HOME.into(), ..v1::Invitation::default() };
            self.done("CreateInvitation", &v1::CreateInvitationRequest { invitation: Some(invitation) });
            let subscription_id = format!("feed-{n}");
            let subscription = Some(v1::Subscription::default());
            self.done("CreateSubscription", &v1::CreateSubscriptionRequest { subscription_id, subscription });
            let (parent, period) = (format!("divisions/{HOME}"), format!("2026-0{n}"));
            self.done("IssueReport", &v1::IssueReportRequest { parent, period });
        }
    }

    /// A grid, a camera and a case; the camera's name is in conflict.
    fn fill_records(&self, n: usize) {
        let camera = |name: &str| v1::Camera {
            device_id: Some(format!("2208221010132000000{n}")),
            division: Some(HOME.into()),
            ownership: Some(v1::CameraOwnership::Social.into()),
            display_name: Some(name.into()),
            ..v1::Camera::default()
        };
        let id = camera("").device_id.unwrap();
        for name in ["a", "b"] {
            self.import(&id, &camera(name));
            let other = v1::Camera { display_name: Some(format!("not {name}")), ..v1::Camera::default() };
            self.write(&format!("cameras/{id}"), &other);
        }
        self.import(&id, &camera("c"));
        let grid = v1::Grid {
            grid_code: Some(format!("22082210100000{n}")),
            division: Some(HOME.into()),
            display_name: Some("g".into()),
            ..v1::Grid::default()
        };
        self.write(&format!("grids/22082210100000{n}"), &grid);
        let case = v1::Case {
            case_kind: Some(v1::CaseKind::Dispute.into()),
            category: Some("neighbours".into()),
            division: Some(HOME.into()),
            received_on: Some(v1::Date { year: 2026, month: 3, day: 1 }),
            title: Some("t".into()),
            lifecycle: Some(v1::Lifecycle {
                state: v1::CaseState::Reported.into(),
                holder: HOME.into(),
                ..v1::Lifecycle::default()
            }),
            ..v1::Case::default()
        };
        self.write(&format!("cases/{n}"), &case);
    }

    fn write(&self, name: &str, fields: &impl Message) {
        let name = format!("divisions/{HOME}/{name}");
        let record = v1::Record { name, fields: fields.encode_to_vec().into(), ..v1::Record::default() };
        self.done("WriteRecord", &v1::WriteRecordRequest { record: Some(record), ..Default::default() });
    }

    /// One row of a ledger.
    fn import(&self, key: &str, fields: &impl Message) {
        use v1::import_records_request::Content;
        let header = v1::ImportHeader { kind: "camera".into(), source: "office".into(), full: false };
        let row = v1::ImportRow {
            key: key.into(),
            home: HOME.into(),
            fields: fields.encode_to_vec().into(),
            line: 2,
            ..v1::ImportRow::default()
        };
        let rows = v1::ImportRows { rows: vec![row] };
        let pieces = [Content::Header(header), Content::Rows(rows)]
            .map(|content| v1::ImportRecordsRequest { content: Some(content) });
        let mut client = v1::record_service_client::RecordServiceClient::with_interceptor(
            self.routes.clone(),
            |mut request: Request<()>| {
                let [local, ..] = callers();
                request.extensions_mut().insert(local);
                Ok(request)
            },
        );
        let answer = self.runtime.block_on(client.import_records(tokio_stream::iter(pieces)));
        assert_eq!(answer.unwrap().into_inner().problems, []);
    }
}

async fn start(path: &str) -> Routes {
    let now_ms =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let environment =
        Environment { now_ms, random: rand::random::<u64>, drift_ms: 300_000, compare_ms: 300_000 };
    let own = Division::parse(OWN).unwrap();
    let options = Options { durable: false, ..Options::default() };
    let (store, writer) = Store::open(path, own, environment.random, now_ms(), options).await.unwrap();
    let parent = Division::parse("2208").ok();
    let (engine, _task) = Engine::start(store, writer, own, parent, environment).await.unwrap();
    let info = NodeInfo {
        software_version: "fuzz".to_owned(),
        started_ms: now_ms(),
        certificate_expire_ms: Arc::new(|| None),
        refused_connections: Arc::new(Vec::new),
        parent_line: Default::default(),
        bundles: None,
        warnings: Arc::new(Vec::new),
    };
    let links = Links::new();
    let checkpoints = Checkpoints::new(engine.clone(), links.clone(), None);
    let stop = CancellationToken::new();
    let clerk: Arc<dyn Registrar> = Arc::new(Clerk);
    let enrolment = Enrolment::new(engine.clone(), links.clone(), clerk.clone(), stop.clone());
    routes(engine, links, info, checkpoints, clerk, enrolment, stop)
}

/// An authority that certifies nobody.
struct Clerk;

impl Registrar for Clerk {
    fn may_invite(&self, _: Division, _: &[String]) -> Result<[u8; FINGERPRINT_BYTES], RegistrarError> {
        Ok([7; FINGERPRINT_BYTES])
    }

    fn key_hash(&self, _: &str) -> Result<[u8; 32], RegistrarError> {
        Ok([7; 32])
    }

    fn sign(&self, _: &str, _: Division, _: &[String]) -> Result<String, RegistrarError> {
        Err(RegistrarError::NoAuthority)
    }

    fn renew(&self, _: &str, _: &Shown) -> Result<String, RegistrarError> {
        Err(RegistrarError::Revoked)
    }

    fn trust(&self) -> watch::Receiver<Arc<v1::Trust>> {
        watch::channel(Arc::default()).1
    }
}

/// Messages as they are on the wire.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
