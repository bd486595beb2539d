//! The wire: bytes out, messages in, on one socket and without a task of its own.
//!
//! Reading and writing go on together (`poll_next`), so a long pipeline cannot lock up against a server that is itself waiting for us
//! to read. Nothing is read ahead of what the caller asks for beyond one buffer: a slow observer slows the server down, and a result
//! of any size passes through in constant memory.

use bytes::{Buf, BytesMut};
use postgres_protocol::message::backend::Message;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// How much is asked of the socket at once.
const READ_BYTES: usize = 32 * 1024;
/// How often an idle link is read to find its end: a server has little to say to one.
const IDLE_READS_MAX: u32 = 4;

/// TCP, a Unix socket, or TLS over TCP.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A framed connection.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    inbound: BytesMut,
    outbound: BytesMut,
    /// The transport took bytes that it has not passed on yet.
    needs_flush: bool,
    /// Writing failed. The server's last words may still be readable, so reading goes on.
    write_error: Option<io::Error>,
}

impl Link {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            inbound: BytesMut::with_capacity(READ_BYTES),
            outbound: BytesMut::new(),
            needs_flush: false,
            write_error: None,
        }
    }

    /// Where to put what shall be sent; it goes out with the next `next` or `flush`.
    pub(super) fn outbound(&mut self) -> &mut BytesMut {
        &mut self.outbound
    }

    /// True when every byte was handed to the transport. False proves that the server cannot have seen the last message.
    pub(super) fn everything_was_sent(&self) -> bool {
        self.outbound.is_empty()
    }

    /// The next message; sends what is waiting meanwhile.
    pub(super) async fn next(&mut self) -> io::Result<Message> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// Sends everything that is waiting, and keeps what arrives meanwhile for `next`.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| {
            loop {
                self.poll_send(context);
                if let Some(error) = self.write_error.take() {
                    return Poll::Ready(Err(error));
                }
                if self.outbound.is_empty() && !self.needs_flush {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_receive(context))?;
            }
        })
        .await
    }

    /// A message that is already here, without waiting: the server's goodbye to an idle session, for example.
    pub(super) async fn next_if_here(&mut self) -> io::Result<Option<Message>> {
        std::future::poll_fn(|context| match self.poll_next(context) {
            Poll::Ready(message) => Poll::Ready(message.map(Some)),
            Poll::Pending => Poll::Ready(Ok(None)),
        })
        .await
    }

    /// True when the other side has closed it; what else is here is kept for `next`.
    pub(super) fn has_ended(&mut self) -> bool {
        // Nobody waits for it meanwhile, so nobody has to be woken.
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..IDLE_READS_MAX {
            match self.poll_receive(&mut context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Message>> {
        self.poll_send(context);
        loop {
            if let Some(message) = Message::parse(&mut self.inbound)? {
                return Poll::Ready(Ok(message));
            }
            if let Err(error) = ready!(self.poll_receive(context)) {
                return Poll::Ready(Err(self.write_error.take().unwrap_or(error)));
            }
        }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inbound.reserve(READ_BYTES);
        // A fresh future for each poll is right here: `read_buf` keeps nothing between polls.
        match ready!(pin!(self.stream.read_buf(&mut self.inbound)).poll(context)) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_send(&mut self, context: &mut Context<'_>) {
        if self.write_error.is_some() {
            return;
        }
        while !self.outbound.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.outbound) {
                Poll::Ready(Ok(0)) => return self.write_error = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.outbound.advance(written);
                    self.needs_flush = true;
                }
                Poll::Ready(Err(error)) => return self.write_error = Some(error),
                Poll::Pending => return,
            }
        }
        if self.needs_flush {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.needs_flush = false,
                Poll::Ready(Err(error)) => self.write_error = Some(error),
                Poll::Pending => {}
            }
        }
    }
}
