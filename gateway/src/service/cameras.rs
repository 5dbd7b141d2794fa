//! `CameraService`: cameras for partner systems. What is common to all kinds is in `resources`.

use guantong_proto::rules::fields::camera as f;
use guantong_proto::v1;
use guantong_proto::v1::camera_service_server::CameraService;
use prost::Message;
use tonic::{Request, Response, Status};

use super::list::{self, Asked, Condition};
use super::resources::{Create, Resources, Update};
use crate::engine::Engine;

pub(super) struct Cameras {
    resources: Resources<v1::Camera>,
}

impl Cameras {
    pub(super) fn new(engine: Engine) -> Cameras {
        Cameras { resources: Resources::new(engine) }
    }
}

fn update(request: &v1::UpdateCameraRequest) -> Update<'_, v1::Camera> {
    Update {
        record: request.camera.as_ref(),
        mask: request.update_mask.as_ref(),
        allow_missing: request.allow_missing,
        acting_division: &request.acting_division,
        request_id: &request.request_id,
    }
}

/// What a list asks for beside the parent.
fn asked(request: &v1::ListCamerasRequest) -> Asked {
    let rest = v1::ListCamerasRequest { page_size: 0, page_token: String::new(), ..request.clone() };
    Asked {
        page_size: request.page_size,
        page_token: request.page_token.clone(),
        show_deleted: request.show_deleted,
        updated_since: request.updated_since,
        external_number: request.external_number.clone(),
        content: rest.encode_to_vec(),
    }
}

fn conditions(request: &v1::ListCamerasRequest) -> Result<Vec<Condition>, Status> {
    let mut conditions = Vec::new();
    if !request.states.is_empty() {
        let known = |n| v1::CameraState::try_from(n).ok().map(|value| value.as_str_name());
        conditions.push(Condition::Parts(f::STATUS, 1, list::numbers("states", &request.states, known)?));
    }
    if !request.pole_code.is_empty() {
        conditions.push(Condition::Texts(f::POLE_CODE, vec![request.pole_code.clone()]));
    }
    conditions.extend(list::days("installed", f::INSTALLED_ON, request.installed.as_ref())?);
    if !request.ownerships.is_empty() {
        let known = |n| v1::CameraOwnership::try_from(n).ok().map(|value| value.as_str_name());
        conditions
            .push(Condition::Numbers(f::OWNERSHIP, list::numbers("ownerships", &request.ownerships, known)?));
    }
    if !request.point_classes.is_empty() {
        let known = |n| v1::PointClass::try_from(n).ok().map(|value| value.as_str_name());
        conditions.push(Condition::Numbers(
            f::POINT_CLASS,
            list::numbers("point_classes", &request.point_classes, known)?,
        ));
    }
    Ok(conditions)
}

#[tonic::async_trait]
impl CameraService for Cameras {
    async fn get_camera(
        &self,
        request: Request<v1::GetCameraRequest>,
    ) -> Result<Response<v1::Camera>, Status> {
        let call = self.resources.call(request)?;
        let name = self.resources.name("name", &call.request.name)?;
        Ok(Response::new(self.resources.get(&call.sight, &name).await?))
    }

    async fn list_cameras(
        &self,
        request: Request<v1::ListCamerasRequest>,
    ) -> Result<Response<v1::ListCamerasResponse>, Status> {
        let call = self.resources.call(request)?;
        let (asked, conditions) = (asked(&call.request), conditions(&call.request)?);
        let listed = self.resources.list(&call.sight, &call.request.parent, asked, conditions).await?;
        let (cameras, next_page_token) = listed;
        Ok(Response::new(v1::ListCamerasResponse { cameras, next_page_token }))
    }

    async fn create_camera(
        &self,
        request: Request<v1::CreateCameraRequest>,
    ) -> Result<Response<v1::Camera>, Status> {
        let call = self.resources.call(request)?;
        let request = &call.request;
        let create = Create {
            parent: &request.parent,
            id: &request.camera_id,
            record: request.camera.as_ref(),
            acting_division: &request.acting_division,
            request_id: &request.request_id,
        };
        Ok(Response::new(self.resources.create(&call, create).await?))
    }

    async fn update_camera(
        &self,
        request: Request<v1::UpdateCameraRequest>,
    ) -> Result<Response<v1::Camera>, Status> {
        let call = self.resources.call(request)?;
        Ok(Response::new(self.resources.update(&call, update(&call.request)).await?))
    }

    async fn batch_write_cameras(
        &self,
        request: Request<v1::BatchWriteCamerasRequest>,
    ) -> Result<Response<v1::BatchWriteCamerasResponse>, Status> {
        let call = self.resources.call(request)?;
        let (parent, items) = (&call.request.parent, &call.request.requests);
        let results = self.resources.batch(&call, parent, items, update).await?;
        Ok(Response::new(v1::BatchWriteCamerasResponse { results }))
    }

    async fn delete_camera(
        &self,
        request: Request<v1::DeleteCameraRequest>,
    ) -> Result<Response<v1::Camera>, Status> {
        let call = self.resources.call(request)?;
        let v1::DeleteCameraRequest { name, etag, request_id, acting_division } = &call.request;
        let deleted = self.resources.delete(&call, name, etag, acting_division, request_id).await?;
        Ok(Response::new(deleted))
    }
}
