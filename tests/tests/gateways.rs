//! Two gateways of a prefecture on one PostgreSQL, as real processes: while counties write and the prefecture corrects,
//! one of the two is killed again and again, and its counties go on at the other. Afterwards everything that was
//! acknowledged is everywhere exactly once, both ends of every link hold the same, and the counts are those of a
//! recount. And a gateway whose database is away says so.
//!
//! `TEST_POSTGRES_URL` names the server (`tests/postgres.sh run …`); `GUANTONG_GATEWAYS_RECORDS` says how many records
//! flow, and `GUANTONG_GATEWAYS_SEED` when who is killed.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use guantong::client::Client;
use guantong::demo::tree::NodeSpec;
use guantong_proto::v1;
use guantong_proto::v1::aggregate_service_client::AggregateServiceClient;
use guantong_tests::harness::{Fleet, Stray, copy_files, division, found, postgres, until, within, write};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

const PROVINCE: &str = "22";
const PREFECTURE: &str = "2208";
const COUNTIES: [&str; 3] = ["220822", "220881", "220802"];
/// Records that flow, unless said otherwise.
const RECORDS: usize = 1_500;
/// Of each so many records, one is corrected above.
const CORRECTED: usize = 25;
/// Serial numbers of what is written right after a kill.
const PROBES: usize = 9_000_000;
/// Kills, at least.
const KILLS_MIN: usize = 4;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A database of its own on the server; `None`, and loudly so, where no server is named.
async fn database(what: &str) -> Option<String> {
    let url = postgres::database(&format!("gateways_{what}")).await;
    if url.is_none() {
        let text = format!("NOT RUN: two gateways on one database; {} names no server\n", postgres::SERVER);
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    url
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The second gateway: the same division, certificate and database, another process, folder and port.
struct Second {
    dir: PathBuf,
    configuration: String,
    process: Option<Stray>,
}

impl Second {
    async fn start(&mut self) {
        let mut process = Stray::serve(&self.dir, &self.configuration);
        process.client().await;
        self.process = Some(process);
    }

    async fn client(&self) -> Client {
        found("the second gateway answers", async || Client::over_socket(&self.dir.join("sock")).await.ok())
            .await
    }
}

/// Province, two gateways of a prefecture, counties that know both.
struct Scene {
    fleet: Fleet,
    second: Second,
    /// Where the two listen.
    addresses: [String; 2],
}

impl Scene {
    async fn start(url: &str) -> Scene {
        let [province, prefecture] = [PROVINCE, PREFECTURE].map(division);
        let top = NodeSpec::top(province);
        let first = NodeSpec::below(province, prefecture).environment("GUANTONG_STORE", url);
        let mut fleet = Fleet::start([top, first]).await;
        let port = free_port();
        let first = fleet.tree.address(prefecture).unwrap();
        let addresses = [first, format!("127.0.0.1:{port}")];
        let dir = fleet.path("second");
        copy_files(&fleet.tree.node_dir(prefecture), &dir);
        let parent = fleet.tree.address(province).unwrap();
        let configuration = format!(
            "division = \"{PREFECTURE}\"\nlisten = \"127.0.0.1:{port}\"\nstore = \"{url}\"\n\n[parent]\n\
             division = \"{PROVINCE}\"\naddress = \"{parent}\"\n"
        );
        let mut second = Second { dir, configuration, process: None };
        second.start().await;
        for (i, county) in COUNTIES.into_iter().enumerate() {
            // Each begins at another one of the two.
            let (one, two) = (&addresses[i % 2], &addresses[(i + 1) % 2]);
            let both = format!("[\"{one}\",\"{two}\"]");
            let spec = NodeSpec::below(prefecture, division(county));
            fleet.tree.add(spec.environment("GUANTONG_PARENT__ADDRESS", &both)).await.unwrap();
        }
        fleet.tree.start_all().await.unwrap();
        for county in COUNTIES {
            fleet.linked(division(county)).await;
        }
        Scene { fleet, second, addresses }
    }

    async fn kill(&mut self, which: usize) {
        match which {
            0 => self.fleet.tree.kill(division(PREFECTURE)).await.unwrap(),
            _ => self.second.process.take().unwrap().kill().await,
        }
    }

    async fn restart(&mut self, which: usize) {
        match which {
            0 => self.fleet.tree.start(division(PREFECTURE)).await.unwrap(),
            _ => self.second.start().await,
        }
    }

    async fn gateway(&self, which: usize) -> Client {
        match which {
            0 => self.fleet.client(PREFECTURE),
            _ => self.second.client().await,
        }
    }

    /// The counties that are linked to a gateway now.
    async fn linked_to(&self, which: usize) -> Vec<&'static str> {
        let mut linked = Vec::new();
        for county in COUNTIES {
            let link = self.fleet.link(county, PREFECTURE).await;
            if link.is_some_and(|link| link.connected && link.address == self.addresses[which]) {
                linked.push(county);
            }
        }
        linked
    }
}

/// The number of a county's camera as GB/T 28181 has it.
fn camera_name(county: &str, serial: usize) -> String {
    format!("divisions/{}/cameras/{county}0000131{serial:07}", division(&format!("{county}101")))
}

/// A camera, told by a field that the prefecture holds and may correct.
fn camera(name: &str) -> v1::Camera {
    v1::Camera {
        management_unit: Some(name.into()),
        ownership: Some(v1::CameraOwnership::Public.into()),
        ..v1::Camera::default()
    }
}

async fn unit_at(client: &Client, record: &str) -> Option<String> {
    use prost::Message;
    let request = v1::GetRecordRequest { name: record.into() };
    let found = client.records().get_record(request).await.ok()?.into_inner();
    v1::Camera::decode(found.fields).unwrap().management_unit
}

/// Writes a county's records one after the other; every one is acknowledged.
async fn write_county(client: Client, county: &'static str, count: usize, written: Arc<AtomicUsize>) {
    for serial in 0..count {
        let name = camera_name(county, serial);
        let unit = camera(&format!("第{serial}号"));
        within("a county takes a record", write(&client, &name, &unit)).await.unwrap();
        written.fetch_add(1, Ordering::Relaxed);
    }
}

/// Corrects records of counties at either gateway of the prefecture; gives those whose correction was acknowledged.
async fn correct(
    sockets: [PathBuf; 2],
    count: usize,
    seed: u64,
    over: Arc<AtomicBool>,
) -> Vec<(&'static str, String, String)> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut corrected = Vec::new();
    let mut serial = 0;
    while serial < count {
        let county = COUNTIES[random.random_range(0..COUNTIES.len())];
        let name = camera_name(county, serial);
        let value = format!("更正{serial}");
        loop {
            let done = async {
                let client = Client::over_socket(&sockets[random.random_range(0..2)]).await.ok()?;
                unit_at(&client, &name).await?;
                write(&client, &name, &camera(&value)).await.ok()
            };
            match tokio::time::timeout(Duration::from_secs(5), done).await {
                Ok(Some(_)) => break,
                // It may have gone in, and is written again.
                _ if over.load(Ordering::Relaxed) => return corrected,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        corrected.push((county, name, value));
        serial += CORRECTED;
    }
    corrected
}

/// Kills one of the two, measures until what each of its counties writes then is at the other, and starts it again.
async fn kill_one(scene: &mut Scene, which: usize, round: usize) -> Vec<Duration> {
    let orphans = scene.linked_to(which).await;
    scene.kill(which).await;
    let killed = Instant::now();
    let other = scene.gateway(1 - which).await;
    let mut moved = Vec::new();
    for county in &orphans {
        let probe = camera_name(county, PROBES + round);
        let client = scene.fleet.client(county);
        write(&client, &probe, &camera("探针")).await.unwrap();
    }
    for county in &orphans {
        let probe = camera_name(county, PROBES + round);
        until("what a county writes arrives at the other gateway", async || {
            unit_at(&other, &probe).await.is_some()
        })
        .await;
        moved.push(killed.elapsed());
    }
    scene.restart(which).await;
    moved
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_of_two_gateways_is_killed_while_records_flow() {
    let Some(url) = database("killed").await else { return };
    let records = number("GUANTONG_GATEWAYS_RECORDS", RECORDS);
    let seed = number("GUANTONG_GATEWAYS_SEED", 7) as u64;
    let mut scene = Scene::start(&url).await;
    let each = records / COUNTIES.len();
    let written = Arc::new(AtomicUsize::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = COUNTIES
        .into_iter()
        .map(|county| tokio::spawn(write_county(scene.fleet.client(county), county, each, written.clone())))
        .collect();
    let sockets = [scene.fleet.tree.socket_path(division(PREFECTURE)), scene.second.dir.join("sock")];
    let corrections = tokio::spawn(correct(sockets, each, seed, over.clone()));

    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut moved, mut kills) = (Vec::new(), 0);
    while kills < KILLS_MIN || writers.iter().any(|writer| !writer.is_finished()) {
        // At a moment that the records say, not the clock.
        let next = written.load(Ordering::Relaxed) + random.random_range(1..=each / 4 + 1);
        until("records flow", async || {
            written.load(Ordering::Relaxed) >= next || writers.iter().all(|writer| writer.is_finished())
        })
        .await;
        moved.extend(kill_one(&mut scene, random.random_range(0..2), kills).await);
        kills += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    let corrected = corrections.await.unwrap();
    moved.sort();
    eprintln!(
        "{records} records, {kills} kills, {} corrections; from the kill to the county's next record at the other \
         gateway, in ms: {:?}",
        corrected.len(),
        moved.iter().map(Duration::as_millis).collect::<Vec<_>>()
    );
    assert!(!corrected.is_empty() && !moved.is_empty());
    settled(&scene, each, &corrected).await;
}

/// Everything that was acknowledged is everywhere, once.
async fn settled(scene: &Scene, each: usize, corrected: &[(&str, String, String)]) {
    scene.fleet.equal().await;
    let clients = [scene.fleet.client(PROVINCE), scene.gateway(0).await, scene.gateway(1).await];
    for client in &clients {
        let names = names(client).await;
        let distinct: BTreeSet<&String> = names.iter().collect();
        assert_eq!(names.len(), distinct.len(), "a record stands twice");
        for county in COUNTIES {
            for serial in 0..each {
                let name = camera_name(county, serial);
                assert!(distinct.contains(&name), "{name} was acknowledged and is lost");
            }
        }
        recounted(client).await;
    }
    for (county, name, value) in corrected {
        let client = scene.fleet.client(county);
        until(&format!("the correction of {name} reaches {county}"), async || {
            unit_at(&client, name).await.as_ref() == Some(value)
        })
        .await;
    }
    for county in COUNTIES {
        let status = scene.fleet.status(county).await;
        assert!(status.warnings.is_empty(), "{county}: {:?}", status.warnings);
    }
}

/// The names of all cameras that a node has.
async fn names(client: &Client) -> Vec<String> {
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListRecordsRequest {
            parent: format!("divisions/{}", division(PREFECTURE)),
            kind: "camera".into(),
            page_size: 1_000,
            page_token,
            ..v1::ListRecordsRequest::default()
        };
        let page = client.records().list_records(request).await.unwrap().into_inner();
        names.extend(page.records.into_iter().map(|record| record.name));
        if page.next_page_token.is_empty() {
            return names;
        }
        page_token = page.next_page_token;
    }
}

/// What a node has counted is what its records say.
async fn recounted(client: &Client) {
    let mut aggregates = AggregateServiceClient::new(client.channel());
    let request = v1::RecountAggregatesRequest { repair: false };
    let mut answers = aggregates.recount_aggregates(request).await.unwrap().into_inner();
    let mut last = v1::RecountAggregatesResponse::default();
    while let Some(answer) = answers.message().await.unwrap() {
        last = answer;
    }
    assert!(last.done && last.record_count > 0);
    assert_eq!(last.difference_count, 0, "{:?}", last.differences);
}

/// Carries connections to the server until it is aborted, which cuts them all.
async fn line(port: u16, server: u16) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let carry = async move {
        let mut carried = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            carried.spawn(async move {
                if let Ok(mut server) = TcpStream::connect(("127.0.0.1", server)).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    };
    (port, tokio::spawn(carry))
}

/// An operator who asks why nothing goes on is told, though the database cannot be asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_says_that_its_database_is_away() {
    let Some(url) = database("away").await else { return };
    let server: PgConnectOptions = url.parse().unwrap();
    let (port, carrying) = line(0, server.get_port()).await;
    let url = server.clone().port(port).to_url_lossy().to_string();
    let [prefecture, county] = [PREFECTURE, COUNTIES[0]].map(division);
    let top = NodeSpec::top(prefecture).environment("GUANTONG_STORE", &url);
    let fleet = Fleet::start([top, NodeSpec::below(prefecture, county)]).await;
    fleet.linked(county).await;
    assert_eq!(fleet.status(PREFECTURE).await.store_outage, None);

    carrying.abort();
    assert!(carrying.await.is_err());
    let (away, status) = found("the gateway says that its database is away", async || {
        let status = fleet.status(PREFECTURE).await;
        status.store_outage.clone().filter(|away| away.reason.contains("refused")).map(|away| (away, status))
    })
    .await;
    assert!(away.start_time.is_some());
    assert_eq!((&*status.division, status.links.len()), ("220800000000", 1), "what it knows itself");
    assert_eq!(status.links[0].peer_division, county.to_string());
    let shown = fleet.cli(PREFECTURE, &["status"]).await.exits(3);
    let shown = shown.shows(&["AWAY", "数据存储不可用", "refused", &county.to_string()]);
    assert!(!shown.out.contains("records 记录 0"), "{shown:?}");
    let json = fleet.cli(PREFECTURE, &["status", "--json"]).await.exits(3).json();
    assert!(json.to_string().contains("refused"), "{json}");

    let (_, _carrying) = line(port, server.get_port()).await;
    until("the database is back", async || fleet.status(PREFECTURE).await.store_outage.is_none()).await;
    fleet.linked(county).await;
    fleet.equal().await;
}
