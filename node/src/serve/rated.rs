//! Refuses calls that come more often than their partner's grant allows, before anything else looks at them. It counts
//! nothing itself, and never holds up a call.

use std::pin::Pin;
use std::task::{Context, Poll};

use guantong_gateway::service::Rates;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

/// Puts the refusing around services. Their requests carry who calls.
#[derive(Clone)]
pub(super) struct Rated(pub(super) Rates);

impl<S> Layer<S> for Rated {
    type Service = Refusing<S>;

    fn layer(&self, inner: S) -> Refusing<S> {
        Refusing { rates: self.0.clone(), inner }
    }
}

/// Services that are not called too often.
#[derive(Clone)]
pub(super) struct Refusing<S> {
    rates: Rates,
    inner: S,
}

impl<S, I, O> Service<Request<I>> for Refusing<S>
where
    S: Service<Request<I>, Response = Response<O>>,
    S::Error: Send + 'static,
    S::Future: Send + 'static,
    O: Default + Send + 'static,
{
    type Response = Response<O>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<O>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<I>) -> Self::Future {
        match self.rates.admit(request.uri().path(), request.extensions()) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(refused) => {
                let refused = refused.into_http();
                Box::pin(async { Ok(refused) })
            }
        }
    }
}
