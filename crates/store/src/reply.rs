//! An answer that cannot be forgotten.

use crate::Error;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The sending half of a oneshot that answers with an error when it is dropped unanswered: by a writer that panicked, or with the
/// queue of a writer that ended. So nobody waits for ever, or has to guess what a closed channel means.
pub(crate) struct Reply<T, E: From<Error>> {
    sender: Option<oneshot::Sender<Result<T, E>>>,
    /// The store's name, for the error.
    store: Arc<str>,
}

impl<T, E: From<Error>> Reply<T, E> {
    pub(crate) fn new(store: &Arc<str>) -> (Self, oneshot::Receiver<Result<T, E>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender: Some(sender), store: store.clone() }, receiver)
    }

    pub(crate) fn send(mut self, answer: Result<T, E>) {
        if let Some(sender) = self.sender.take() {
            // The caller need not wait for the answer.
            drop(sender.send(answer));
        }
    }
}

impl<T, E: From<Error>> Drop for Reply<T, E> {
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            drop(sender.send(Err(Error::writer_gone(&self.store).into())));
        }
    }
}
