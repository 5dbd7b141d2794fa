//! `GridService`: grids for partner systems. What is common to all kinds is in `resources`.

use guantong_proto::rules::fields::grid as f;
use guantong_proto::v1;
use guantong_proto::v1::grid_service_server::GridService;
use prost::Message;
use tonic::{Request, Response, Status};

use super::list::{self, Asked, Condition};
use super::resources::{Create, Resources, Update};
use crate::engine::Engine;

pub(super) struct Grids {
    resources: Resources<v1::Grid>,
}

impl Grids {
    pub(super) fn new(engine: Engine) -> Grids {
        Grids { resources: Resources::new(engine) }
    }
}

fn update(request: &v1::UpdateGridRequest) -> Update<'_, v1::Grid> {
    Update {
        record: request.grid.as_ref(),
        mask: request.update_mask.as_ref(),
        allow_missing: request.allow_missing,
        acting_division: &request.acting_division,
        request_id: &request.request_id,
    }
}

/// What a list asks for beside the parent.
fn asked(request: &v1::ListGridsRequest) -> Asked {
    let rest = v1::ListGridsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    Asked {
        page_size: request.page_size,
        page_token: request.page_token.clone(),
        show_deleted: request.show_deleted,
        updated_since: request.updated_since,
        external_number: request.external_number.clone(),
        content: rest.encode_to_vec(),
    }
}

fn conditions(request: &v1::ListGridsRequest) -> Result<Vec<Condition>, Status> {
    let mut conditions = Vec::new();
    if !request.states.is_empty() {
        let known = |n| v1::ActiveState::try_from(n).ok().map(|value| value.as_str_name());
        conditions.push(Condition::Numbers(f::STATE, list::numbers("states", &request.states, known)?));
    }
    if !request.grid_types.is_empty() {
        let known = |n| v1::GridType::try_from(n).ok().map(|value| value.as_str_name());
        conditions
            .push(Condition::Numbers(f::GRID_TYPE, list::numbers("grid_types", &request.grid_types, known)?));
    }
    Ok(conditions)
}

#[tonic::async_trait]
impl GridService for Grids {
    async fn get_grid(&self, request: Request<v1::GetGridRequest>) -> Result<Response<v1::Grid>, Status> {
        let call = self.resources.call(request)?;
        let name = self.resources.name("name", &call.request.name)?;
        Ok(Response::new(self.resources.get(&call.sight, &name).await?))
    }

    async fn list_grids(
        &self,
        request: Request<v1::ListGridsRequest>,
    ) -> Result<Response<v1::ListGridsResponse>, Status> {
        let call = self.resources.call(request)?;
        let (asked, conditions) = (asked(&call.request), conditions(&call.request)?);
        let listed = self.resources.list(&call.sight, &call.request.parent, asked, conditions).await?;
        let (grids, next_page_token) = listed;
        Ok(Response::new(v1::ListGridsResponse { grids, next_page_token }))
    }

    async fn create_grid(
        &self,
        request: Request<v1::CreateGridRequest>,
    ) -> Result<Response<v1::Grid>, Status> {
        let call = self.resources.call(request)?;
        let request = &call.request;
        let create = Create {
            parent: &request.parent,
            id: &request.grid_id,
            record: request.grid.as_ref(),
            acting_division: &request.acting_division,
            request_id: &request.request_id,
        };
        Ok(Response::new(self.resources.create(&call, create).await?))
    }

    async fn update_grid(
        &self,
        request: Request<v1::UpdateGridRequest>,
    ) -> Result<Response<v1::Grid>, Status> {
        let call = self.resources.call(request)?;
        Ok(Response::new(self.resources.update(&call, update(&call.request)).await?))
    }

    async fn batch_write_grids(
        &self,
        request: Request<v1::BatchWriteGridsRequest>,
    ) -> Result<Response<v1::BatchWriteGridsResponse>, Status> {
        let call = self.resources.call(request)?;
        let (parent, items) = (&call.request.parent, &call.request.requests);
        let results = self.resources.batch(&call, parent, items, update).await?;
        Ok(Response::new(v1::BatchWriteGridsResponse { results }))
    }

    async fn delete_grid(
        &self,
        request: Request<v1::DeleteGridRequest>,
    ) -> Result<Response<v1::Grid>, Status> {
        let call = self.resources.call(request)?;
        let v1::DeleteGridRequest { name, etag, request_id, acting_division } = &call.request;
        let deleted = self.resources.delete(&call, name, etag, acting_division, request_id).await?;
        Ok(Response::new(deleted))
    }
}
