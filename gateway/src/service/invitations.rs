//! `InvitationService`: operators invite new nodes. The code is in one answer and nowhere else.

use std::sync::Arc;

use guantong_proto::v1;
use guantong_proto::v1::invitation_service_server::InvitationService;
use tonic::{Request, Response, Status};

use super::enrolment::{Registrar, lend};
use super::{caller, page, status, view};
use crate::audit::Event;
use crate::division::Division;
use crate::engine::Engine;
use crate::invitation::{Code, Fate, Invitation, SECRET_BYTES, secret_hash};

/// How long a code is good where nothing is said.
const VALID_MS: u64 = 72 * 3600 * 1000;
/// How long a code may be good.
const VALID_MAX_MS: u64 = 30 * 24 * 3600 * 1000;
/// Names and addresses of one node.
const HOSTS_MAX: usize = 16;

pub(super) struct Invitations {
    engine: Engine,
    registrar: Arc<dyn Registrar>,
}

impl Invitations {
    pub(super) fn new(engine: Engine, registrar: Arc<dyn Registrar>) -> Invitations {
        Invitations { engine, registrar }
    }

    fn now_ms(&self) -> u64 {
        (self.engine.shared().environment.now_ms)()
    }

    fn secret(&self) -> [u8; SECRET_BYTES] {
        let random = self.engine.shared().environment.random;
        let bytes = [random().to_be_bytes(), random().to_be_bytes()].concat();
        let mut secret = [0; SECRET_BYTES];
        secret.copy_from_slice(&bytes[..SECRET_BYTES]);
        secret
    }

    /// Until when the code is to be good.
    fn expire_ms(&self, asked: Option<&prost_types::Timestamp>, now_ms: u64) -> Result<u64, Status> {
        let Some(asked) = asked else { return Ok(now_ms + VALID_MS) };
        let asked_ms = u64::try_from(asked.seconds).unwrap_or(0).saturating_mul(1_000);
        if asked_ms <= now_ms || asked_ms > now_ms + VALID_MAX_MS {
            let text = "invitation.expire_time: choose a time within the next 30 days (有效期须在30天以内)";
            return Err(status::invalid("invitation.expire_time", text));
        }
        Ok(asked_ms)
    }

    fn shown(&self, row: &Invitation) -> v1::Invitation {
        let (state, use_ms) = match &row.fate {
            Fate::Open if self.now_ms() >= row.expire_ms => (v1::InvitationState::Expired, None),
            Fate::Open => (v1::InvitationState::Open, None),
            Fate::Used { at_ms, .. } => (v1::InvitationState::Used, Some(*at_ms)),
            Fate::Withdrawn { .. } => (v1::InvitationState::Withdrawn, None),
        };
        v1::Invitation {
            name: format!("invitations/{:016x}", row.id),
            division: row.division.to_string(),
            hosts: row.hosts.clone(),
            expire_time: Some(view::timestamp(row.expire_ms)),
            create_time: Some(view::timestamp(row.created_ms)),
            created_by: row.created_by.clone(),
            state: state.into(),
            use_time: use_ms.map(view::timestamp),
            code: String::new(),
        }
    }
}

/// The number of `invitations/{invitation}`.
fn id_of(name: &str) -> Result<u64, Status> {
    let digits = name.strip_prefix("invitations/").filter(|digits| digits.len() == 16);
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| {
        status::invalid("name", "name: write invitations/ and 16 hexadecimal digits, as in the list")
    })
}

/// Where a list goes on: when the last one was made, and its number.
fn position(token: &str) -> Option<(u64, u64)> {
    let (created_ms, id) = token.split_once('-')?;
    Some((created_ms.parse().ok()?, id.parse().ok()?))
}

#[tonic::async_trait]
impl InvitationService for Invitations {
    async fn create_invitation(
        &self,
        request: Request<v1::CreateInvitationRequest>,
    ) -> Result<Response<v1::Invitation>, Status> {
        let created_by = caller::operator(request.extensions())?.name();
        let asked = request.into_inner().invitation.unwrap_or_default();
        let own = self.engine.shared().own();
        let division = Division::parse(&asked.division)
            .map_err(|e| status::invalid("invitation.division", format!("invitation.division: {e}")))?;
        if !own.strictly_contains(division) {
            let text = format!(
                "invitation.division: {division} does not lie inside {own}, so this node is not its parent (不是本节点的下级)"
            );
            return Err(status::invalid("invitation.division", text));
        }
        if asked.hosts.len() > HOSTS_MAX {
            let text = format!("invitation.hosts: at most {HOSTS_MAX} names and addresses");
            return Err(status::invalid("invitation.hosts", text));
        }
        let hosts = asked.hosts.clone();
        let fingerprint =
            lend(&self.registrar, move |registrar| registrar.may_invite(division, &hosts)).await?;
        let (now_ms, secret) = (self.now_ms(), self.secret());
        let new = Invitation {
            id: (self.engine.shared().environment.random)(),
            secret_hash: secret_hash(&secret),
            division,
            hosts: asked.hosts,
            created_ms: now_ms,
            created_by,
            expire_ms: self.expire_ms(asked.expire_time.as_ref(), now_ms)?,
            fate: Fate::Open,
        };
        let mut answer = self.shown(&new);
        tracing::info!(%division, invitation = %answer.name, by = %new.created_by, "a new node is invited (已邀请新节点)");
        let invited = Event::Invited {
            invitation: format!("{:016x}", new.id),
            division,
            expire_ms: new.expire_ms,
            by: new.created_by.clone(),
        };
        self.engine.invite(new).await.map_err(|e| status::unfinished(&e))?;
        self.engine.audit(invited);
        answer.code = Code { secret, fingerprint }.to_string();
        Ok(Response::new(answer))
    }

    async fn list_invitations(
        &self,
        request: Request<v1::ListInvitationsRequest>,
    ) -> Result<Response<v1::ListInvitationsResponse>, Status> {
        caller::operator(request.extensions())?;
        let request = request.into_inner();
        let size = page::size(request.page_size)?;
        let after = page::after("invitations", &request.page_token)?;
        let after = after.map(|after| {
            let wrong = "the page token is not one of this list; start without one";
            position(&after).ok_or_else(|| status::invalid("page_token", wrong))
        });
        let store = &self.engine.shared().store;
        let rows = store.invitations(after.transpose()?, size).await.map_err(|e| status::of_store(&e))?;
        let last = rows.last().filter(|_| rows.len() == size);
        let last = last.map(|row| format!("{}-{}", row.created_ms, row.id));
        let next_page_token = last.map(|last| page::token("invitations", &last)).unwrap_or_default();
        let invitations = rows.iter().map(|row| self.shown(row)).collect();
        Ok(Response::new(v1::ListInvitationsResponse { invitations, next_page_token }))
    }

    async fn delete_invitation(
        &self,
        request: Request<v1::DeleteInvitationRequest>,
    ) -> Result<Response<()>, Status> {
        let by = caller::operator(request.extensions())?.name();
        let name = &request.get_ref().name;
        let id = id_of(name)?;
        let store = &self.engine.shared().store;
        let known = store.invitation_of(id).await.map_err(|e| status::of_store(&e))?;
        let known = known.ok_or_else(|| status::not_found(name))?;
        let withdrawn = Fate::Withdrawn { at_ms: self.now_ms() };
        let closed = matches!(known.fate, Fate::Open)
            && self.engine.close_invitation(id, withdrawn).await.map_err(|e| status::unfinished(&e))?;
        if !closed {
            let text = "the invitation was used or taken back already; a node that came by it keeps its certificate \
                        until that is revoked (邀请已使用或已撤回)";
            return Err(status::not_now(text, "INVITATION_CLOSED"));
        }
        self.engine.audit(Event::InvitationWithdrawn { invitation: format!("{id:016x}"), by: by.clone() });
        tracing::info!(invitation = %name, %by, "an invitation was taken back (已撤回邀请)");
        Ok(Response::new(()))
    }
}
