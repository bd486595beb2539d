//! The listener: connections are bounded in number, and none may be slow for ever.
//!
//! Who sends the head of a request byte by byte, or never reads an answer, loses the connection; who comes when all places are taken waits in
//! the system's queue. A stream is read for as long as one likes, as long as it is read.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep};
use tower_service::Service as _;

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// Connections at once.
    pub connections_max: usize,
    /// From the first byte of a request, or from the answer before it, to the end of its head.
    pub head_at_most: Duration,
    /// Between two bytes of an answer that the other side takes.
    pub write_at_most: Duration,
}

impl Default for Allowed {
    fn default() -> Self {
        Self { connections_max: 1024, head_at_most: Duration::from_secs(60), write_at_most: Duration::from_secs(30) }
    }
}

/// Bytes of a request's head at most; a longer one is refused with 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a connection's buffers at most.
const BUFFER_BYTES_MAX: usize = 128 * 1024;
/// A listener that fails (no file handles are left, say) is asked again after so long.
const REST: Duration = Duration::from_millis(200);

/// Serves until `stop` resolves, and then until the answers that are under way are given.
pub async fn serve(listener: TcpListener, router: Router, allowed: Allowed, stop: impl Future<Output = ()> + Send + 'static) {
    let places = Arc::new(Semaphore::new(allowed.connections_max));
    // Every connection has a receiver: when the last is gone, all are over.
    let (stopping, stopped) = watch::channel(false);
    tokio::pin!(stop);
    loop {
        let place = tokio::select! {
            () = &mut stop => break,
            place = places.clone().acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, stopped) = (router.clone(), stopped.clone());
                tokio::spawn(async move {
                    converse(stream, router, allowed, stopped).await;
                    drop(place);
                });
            }
            // The other side was gone already, or the system is short of something: neither is a reason to stop.
            Err(_) => tokio::time::sleep(REST).await,
        }
    }
    drop(stopped);
    stopping.send_replace(true);
    stopping.closed().await;
}

async fn converse(stream: TcpStream, router: Router, allowed: Allowed, mut stopped: watch::Receiver<bool>) {
    // Small answers are not held back to be sent together.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| router.clone().call(request.map(Body::new)));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(allowed.head_at_most)
        .max_buf_size(BUFFER_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(Patient::new(stream, allowed.write_at_most)), service);
    tokio::pin!(connection);
    // A connection that ends with an error has nobody left to tell.
    let has_ended = tokio::select! {
        _ = connection.as_mut() => true,
        _ = stopped.wait_for(|stopped| *stopped) => false,
    };
    if !has_ended {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

/// A link whose other side must take what is written within a time.
struct Patient {
    stream: TcpStream,
    at_most: Duration,
    /// Runs while the other side takes nothing.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream, at_most: Duration) -> Self {
        Self { stream, at_most, waiting: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let at_most = self.at_most;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + at_most)));
        match waiting.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other side reads nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judge(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use axum::routing::get;
    use futures_util::stream;
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    /// A server of one place for connections, whose times are short.
    async fn serving() -> SocketAddr {
        let endless = || async { Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from(vec![b'x'; 65536])))) };
        let router = Router::new().route("/", get(|| async { "here" })).route("/endless", get(endless));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let short = Duration::from_millis(100);
        let allowed = Allowed { connections_max: 1, head_at_most: short, write_at_most: short };
        tokio::spawn(serve(listener, router, allowed, std::future::pending()));
        address
    }

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(GET).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_sends_half_a_head_keeps_nobody_out() {
        let address = serving().await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(&GET[..20]).await.unwrap();
        // There is one place: this waits until the slow one has lost it.
        assert!(ask(address).await.ends_with("here"));
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"), "half a head has no answer");
    }

    #[tokio::test]
    async fn who_reads_nothing_keeps_nobody_out() {
        let address = serving().await;
        let mut deaf = TcpStream::connect(address).await.unwrap();
        deaf.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(ask(address).await.ends_with("here"));
        drop(deaf);
    }

    #[tokio::test]
    async fn a_stop_waits_for_answers_that_are_under_way() {
        let router = Router::new().route("/", get(|| async { "here" }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let allowed = Allowed { connections_max: 8, ..Allowed::default() };
        let server = tokio::spawn(serve(listener, router, allowed, async { drop(stopped.await) }));
        assert!(ask(address).await.ends_with("here"));
        stop.send(()).unwrap();
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    }
}
