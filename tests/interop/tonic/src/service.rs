//! jina's methods on tonic, as its generated code would have them: the unary one, and the stream of old gateways.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::answer::answer;
use crate::counters::Counters;
use crate::message::DataRequest;

/// Bytes of a message that the server takes and sends; of tonic's own there are 4 MiB.
const MOST_BYTES: usize = 256 << 20;

#[derive(Clone)]
pub struct Unary(pub Arc<Counters>);

impl NamedService for Unary {
    const NAME: &'static str = "jina.JinaSingleDataRequestRPC";
}

impl UnaryService<DataRequest> for Unary {
    type Response = DataRequest;
    type Future = BoxFuture<Response<DataRequest>, Status>;

    fn call(&mut self, request: Request<DataRequest>) -> Self::Future {
        let counters = self.0.clone();
        Box::pin(async move {
            note_timeout(&request, &counters);
            Ok(Response::new(answer(request.into_inner(), &counters).await))
        })
    }
}

impl Service<http::Request<Body>> for Unary {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move { Ok(grpc().unary(method, request).await) })
    }
}

#[derive(Clone)]
pub struct Call(pub Arc<Counters>);

impl NamedService for Call {
    const NAME: &'static str = "jina.JinaRPC";
}

type Replies = Pin<Box<dyn Stream<Item = Result<DataRequest, Status>> + Send>>;

impl StreamingService<DataRequest> for Call {
    type Response = DataRequest;
    type ResponseStream = Replies;
    type Future = BoxFuture<Response<Replies>, Status>;

    fn call(&mut self, request: Request<Streaming<DataRequest>>) -> Self::Future {
        let counters = self.0.clone();
        Box::pin(async move {
            note_timeout(&request, &counters);
            let replies = request.into_inner().then(move |message| {
                let counters = counters.clone();
                async move { Ok(answer(message?, &counters).await) }
            });
            Ok(Response::new(Box::pin(replies) as Replies))
        })
    }
}

impl Service<http::Request<Body>> for Call {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = self.clone();
        Box::pin(async move { Ok(grpc().streaming(method, request).await) })
    }
}

fn grpc() -> Grpc<ProstCodec<DataRequest, DataRequest>> {
    Grpc::new(ProstCodec::default())
        .apply_max_message_size_config(Some(MOST_BYTES), Some(MOST_BYTES))
}

fn note_timeout<T>(request: &Request<T>, counters: &Counters) {
    if let Some(timeout) = request.metadata().get("grpc-timeout") {
        counters.note_timeout(timeout.to_str().unwrap_or("no ASCII"));
    }
}
