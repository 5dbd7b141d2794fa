//! How a new node comes by its certificate: a key made here, a request to its parent's lobby, and a configuration that
//! `guantong serve` starts from.
//!
//! The parent is known by the fingerprint in the code and by nothing else. The key never leaves; interrupted anywhere,
//! the same command with the same code goes on with the same key. What is there already must never be replaced unasked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use guantong_gateway::division::Division;
use guantong_gateway::invitation::Code;
use guantong_proto::v1;
use guantong_proto::v1::enrolment_service_client::EnrolmentServiceClient;

use super::place::Place;
use crate::cli::problem;
use crate::identity::lobby::newcomer_config;
use crate::identity::pki::KeyRequest;
use crate::identity::tls::IdentityPem;
use crate::identity::{Dialed, ExpectedPeer, Identity, SpiffeId, Subject, connect_to_lobby, keeping};

/// For connecting, and for the answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer, in bytes: it brings revocation lists.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// What a new node has come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Enrolled {
    /// Who it is.
    pub(super) id: SpiffeId,
    /// Its parent.
    pub(super) parent: Division,
    /// When its certificate runs out, Unix time in milliseconds.
    pub(super) not_after_ms: u64,
    /// The configuration that was written or completed.
    pub(super) config: PathBuf,
}

/// Enrols this machine's node: asks the parent at `endpoint`, and writes what it answers to the places.
///
/// # Errors
/// What was wrong, and what to do; files that were there before are as they were.
pub(super) async fn enrol(
    endpoint: &str,
    code: &Code,
    place: &Place,
    force: bool,
) -> anyhow::Result<Enrolled> {
    let files = place.files();
    let in_the_way = [&files.key, &files.certificate].into_iter().find(|path| path.exists());
    if let Some(path) = in_the_way.filter(|_| !force) {
        bail!(
            "{} is there already and stays as it is; choose another directory with --out, or say --force to replace key \
             and certificate (文件已存在，未作改动)",
            path.display()
        );
    }
    place.make_dirs()?;
    let new = match keeping::waiting_key(&files).map(|key_pem| KeyRequest::of_key(&key_pem)) {
        // An earlier attempt may have been answered without our knowing.
        Some(Ok(known)) => known,
        _ => KeyRequest::new()?,
    };
    keeping::keep_waiting_key(&files, &new.key_pem)?;
    let config = Arc::new(newcomer_config(code.fingerprint)?);
    let dialed = connect_to_lobby(endpoint, config, ExpectedPeer::AnyNode, PATIENCE).await?;
    let answer = ask(&dialed, code, &new.request_pem).await?;
    let trust = answer.trust.unwrap_or_default();
    let identity = Identity::from_pem(IdentityPem {
        certificate: answer.certificate.as_bytes(),
        key: new.key_pem.as_bytes(),
        authority: trust.authorities.as_bytes(),
        revocations: Some(trust.revocation_lists.as_bytes()),
        authority_scope: files.authority_scope,
    })
    .context("what the parent answered cannot be used (上级的应答无法使用)")?;
    let parent = parent_of(&identity, &dialed)?;
    let division = identity.id().subject.division().context("the certificate is not a node's")?;
    let text = place.configuration(endpoint, parent, identity.id(), division)?;
    let revocations = files.revocations.as_deref().context("no place for revocation lists")?;
    keeping::replace(&files.authority, &trust.authorities)?;
    keeping::replace(revocations, &trust.revocation_lists)?;
    keeping::replace_pair(&files, &answer.certificate, &new.key_pem)?;
    // One that is complete may lie where this program is not allowed to write.
    if text != place.text {
        keeping::replace(&place.config, &text)?;
    }
    Ok(Enrolled {
        id: identity.id().clone(),
        parent,
        not_after_ms: identity.certificate().not_after_ms,
        config: place.config.clone(),
    })
}

async fn ask(dialed: &Dialed, code: &Code, request_pem: &str) -> anyhow::Result<v1::EnrolResponse> {
    let mut client =
        EnrolmentServiceClient::new(dialed.channel.clone()).max_decoding_message_size(ANSWER_MAX_BYTES);
    let request =
        v1::EnrolRequest { secret: code.secret.to_vec().into(), signing_request: request_pem.to_owned() };
    let answer = tokio::time::timeout(PATIENCE, client.enrol(request)).await;
    let answer = answer.map_err(|_| {
        anyhow::anyhow!(
            "the parent did not answer in time; run the same command again (上级未及时应答，请重试)"
        )
    })?;
    Ok(answer.map_err(problem::plain)?.into_inner())
}

/// Who has answered must be a node around the new one, whose certificate is good by what it sent.
fn parent_of(identity: &Identity, dialed: &Dialed) -> anyhow::Result<Division> {
    identity.check_peer(&dialed.peer).map_err(|trouble| anyhow::anyhow!("{}", trouble.words()))?;
    let own = identity.id().subject.division();
    match &dialed.peer.id.subject {
        Subject::Node(parent) if own.is_some_and(|own| parent.strictly_contains(own)) => Ok(*parent),
        other => bail!("{other} has answered, which is not a node above this one (应答者不是上级节点)"),
    }
}
