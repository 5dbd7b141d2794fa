//! `CaseService`: cases for partner systems. What is common to all kinds is in `resources`; the moves of cases in `moves`.

use guantong_proto::rules::fields::case as f;
use guantong_proto::v1;
use guantong_proto::v1::case_service_server::CaseService;
use prost::Message;
use tonic::{Request, Response, Status};

use super::list::{self, Asked, Condition};
use super::moves;
use super::resources::{Create, Resources, Update};
use super::writes;
use crate::engine::Engine;

pub(super) struct Cases {
    resources: Resources<v1::Case>,
}

impl Cases {
    pub(super) fn new(engine: Engine) -> Cases {
        Cases { resources: Resources::new(engine) }
    }
}

fn update(request: &v1::UpdateCaseRequest) -> Update<'_, v1::Case> {
    Update {
        record: request.case.as_ref(),
        mask: request.update_mask.as_ref(),
        allow_missing: request.allow_missing,
        acting_division: &request.acting_division,
        request_id: &request.request_id,
    }
}

/// What a list asks for beside the parent.
fn asked(request: &v1::ListCasesRequest) -> Asked {
    let rest = v1::ListCasesRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    Asked {
        page_size: request.page_size,
        page_token: request.page_token.clone(),
        show_deleted: request.show_deleted,
        updated_since: request.updated_since,
        external_number: request.external_number.clone(),
        content: rest.encode_to_vec(),
    }
}

fn conditions(request: &v1::ListCasesRequest) -> Result<Vec<Condition>, Status> {
    let mut conditions = Vec::new();
    if !request.states.is_empty() {
        let known = |n| v1::CaseState::try_from(n).ok().map(|value| value.as_str_name());
        conditions.push(Condition::Parts(f::LIFECYCLE, 1, list::numbers("states", &request.states, known)?));
    }
    if !request.categories.is_empty() {
        conditions.push(Condition::Texts(f::CATEGORY, list::texts("categories", &request.categories)?));
    }
    conditions.extend(writes::optional_division("holder", &request.holder)?.map(Condition::Holder));
    if !request.unit.is_empty() {
        conditions.push(Condition::Unit(request.unit.clone()));
    }
    conditions.extend(list::days("received", f::RECEIVED_ON, request.received.as_ref())?);
    conditions.extend(list::days("occurred", f::OCCURRED_ON, request.occurred.as_ref())?);
    Ok(conditions)
}

#[tonic::async_trait]
impl CaseService for Cases {
    async fn get_case(&self, request: Request<v1::GetCaseRequest>) -> Result<Response<v1::Case>, Status> {
        let call = self.resources.call(request)?;
        let name = self.resources.name("name", &call.request.name)?;
        Ok(Response::new(self.resources.get(&call.sight, &name).await?))
    }

    async fn list_cases(
        &self,
        request: Request<v1::ListCasesRequest>,
    ) -> Result<Response<v1::ListCasesResponse>, Status> {
        let call = self.resources.call(request)?;
        let (asked, conditions) = (asked(&call.request), conditions(&call.request)?);
        let listed = self.resources.list(&call.sight, &call.request.parent, asked, conditions).await?;
        let (cases, next_page_token) = listed;
        Ok(Response::new(v1::ListCasesResponse { cases, next_page_token }))
    }

    async fn create_case(
        &self,
        request: Request<v1::CreateCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        let call = self.resources.call(request)?;
        let request = &call.request;
        let create = Create {
            parent: &request.parent,
            id: &request.case_id,
            record: request.case.as_ref(),
            acting_division: &request.acting_division,
            request_id: &request.request_id,
        };
        Ok(Response::new(self.resources.create(&call, create).await?))
    }

    async fn update_case(
        &self,
        request: Request<v1::UpdateCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        let call = self.resources.call(request)?;
        Ok(Response::new(self.resources.update(&call, update(&call.request)).await?))
    }

    async fn batch_write_cases(
        &self,
        request: Request<v1::BatchWriteCasesRequest>,
    ) -> Result<Response<v1::BatchWriteCasesResponse>, Status> {
        let call = self.resources.call(request)?;
        let (parent, items) = (&call.request.parent, &call.request.requests);
        let results = self.resources.batch(&call, parent, items, update).await?;
        Ok(Response::new(v1::BatchWriteCasesResponse { results }))
    }

    async fn delete_case(
        &self,
        request: Request<v1::DeleteCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        let call = self.resources.call(request)?;
        let v1::DeleteCaseRequest { name, etag, request_id, acting_division } = &call.request;
        let deleted = self.resources.delete(&call, name, etag, acting_division, request_id).await?;
        Ok(Response::new(deleted))
    }

    async fn accept_case(
        &self,
        request: Request<v1::AcceptCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn escalate_case(
        &self,
        request: Request<v1::EscalateCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn assign_case(
        &self,
        request: Request<v1::AssignCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn transfer_case(
        &self,
        request: Request<v1::TransferCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn conclude_case(
        &self,
        request: Request<v1::ConcludeCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn verify_case(
        &self,
        request: Request<v1::VerifyCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn send_back_case(
        &self,
        request: Request<v1::SendBackCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn return_case(
        &self,
        request: Request<v1::ReturnCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn refuse_case(
        &self,
        request: Request<v1::RefuseCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn file_case(&self, request: Request<v1::FileCaseRequest>) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn cancel_case(
        &self,
        request: Request<v1::CancelCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::make(&self.resources, request).await
    }

    async fn supervise_case(
        &self,
        request: Request<v1::SuperviseCaseRequest>,
    ) -> Result<Response<v1::Case>, Status> {
        moves::supervise(&self.resources, request).await
    }

    async fn reply_case(&self, request: Request<v1::ReplyCaseRequest>) -> Result<Response<v1::Case>, Status> {
        moves::reply(&self.resources, request).await
    }
}
