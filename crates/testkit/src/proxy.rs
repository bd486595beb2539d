//! A TCP proxy in front of a server, that does what networks do: cuts links, holds everything back, is slow, and breaks off just when a
//! commit has been carried out and nobody has been told.
//!
//! It must not know what is spoken over it, but for the bytes that a test says a commit is recognised by.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes taken in one go.
const CHUNK: usize = 16 * 1024;

/// A proxy that listens on a port of its own. Its links are cut when it is dropped.
pub struct Proxy {
    port: u16,
    network: Arc<Network>,
}

/// What the links of a proxy share.
struct Network {
    target: u16,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_down: bool,
    is_stalled: bool,
    is_over: bool,
    delay: Duration,
    /// Bytes of a request, and what becomes of it: once each time that it is asked for.
    trigger: Option<(Vec<u8>, Fate)>,
    cuts_done: u64,
    /// A request or an answer is kept back just now.
    is_keeping: bool,
    next_link: u64,
    links: Vec<(u64, TcpStream, TcpStream)>,
}

/// What becomes of a request, or of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It reaches the server; the answer is lost together with the link.
    AnswerLost,
    /// It reaches the server; the answer is kept back, and the link stays.
    AnswerKept,
    /// It does not reach the server, and the link stays.
    RequestKept,
}

impl Proxy {
    /// To a server on a port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be listened at.
    pub fn to(target: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let network = Arc::new(Network { target, state: Mutex::default(), changed: Condvar::new() });
        let accepting = network.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.state().is_over {
                    return;
                }
                accepting.accept(client);
            }
        });
        Ok(Self { port, network })
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every link, at once and in both directions.
    pub fn cut(&self) {
        self.network.cut();
    }

    /// Refuses new links, and cuts those that are there, until [`Self::heal`].
    pub fn go_down(&self) {
        self.network.state().is_down = true;
        self.network.cut();
    }

    /// A black hole: nothing gets through and nobody is told, until [`Self::heal`].
    pub fn stall(&self) {
        self.network.state().is_stalled = true;
    }

    /// Every piece is this late.
    pub fn delay(&self, by: Duration) {
        self.network.state().delay = by;
    }

    /// The next request that holds these bytes reaches the server, and its answer is lost together with the link.
    pub fn cut_when_answered(&self, request: &[u8]) {
        self.network.state().trigger = Some((request.to_vec(), Fate::AnswerLost));
    }

    /// The next request that holds these bytes, or its answer, gets no further, until [`Self::heal`] cuts its link.
    pub fn keep_back(&self, request: &[u8], fate: Fate) {
        self.network.state().trigger = Some((request.to_vec(), fate));
    }

    /// Waits until it is kept back. False when that does not happen within `limit`.
    pub fn is_kept_back_within(&self, limit: Duration) -> bool {
        let state = self.network.state();
        let waited = self.network.changed.wait_timeout_while(state, limit, |state| !state.is_keeping);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_keeping
    }

    /// How often that happened.
    pub fn cuts_when_answered(&self) -> u64 {
        self.network.state().cuts_done
    }

    /// All is well again. What was held back goes on, where its link was not cut.
    pub fn heal(&self) {
        let mut state = self.network.state();
        (state.is_down, state.is_stalled, state.delay, state.trigger) = (false, false, Duration::ZERO, None);
        state.is_keeping = false;
        drop(state);
        self.network.changed.notify_all();
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("port", &self.port).field("target", &self.network.target).finish()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.state().is_over = true;
        self.network.cut();
        self.network.changed.notify_all();
        // Wakes the thread that accepts, so that it sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Network {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) {
        let links = std::mem::take(&mut self.state().links);
        for (_, client, server) in links {
            close(&client, &server);
        }
        self.changed.notify_all();
    }

    fn accept(self: &Arc<Self>, client: TcpStream) {
        if self.state().is_down {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else { return };
        // Pieces are passed on as they come.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let clones = || Some((client.try_clone().ok()?, server.try_clone().ok()?));
        let (Some(kept), Some(forth), Some(back)) = (clones(), clones(), clones()) else { return };
        let fate = Arc::new(Mutex::new(None));
        let mut state = self.state();
        state.next_link += 1;
        let link = state.next_link;
        state.links.push((link, kept.0, kept.1));
        drop(state);
        for (from, to, is_request) in [(forth.0, forth.1, true), (back.1, back.0, false)] {
            let (network, fate) = (self.clone(), fate.clone());
            std::thread::spawn(move || {
                network.pump(link, from, to, is_request, &fate);
                network.state().links.retain(|(number, ..)| *number != link);
            });
        }
    }

    /// Passes on what comes, until either end is closed.
    fn pump(&self, link: u64, mut from: TcpStream, mut to: TcpStream, is_request: bool, fate: &Mutex<Option<Fate>>) {
        let mut piece = vec![0; CHUNK];
        loop {
            let read = match from.read(&mut piece) {
                Ok(read) if read > 0 => read,
                Ok(_) | Err(_) => break,
            };
            if !self.may_pass(link) {
                break;
            }
            let mut known = fate.lock().unwrap_or_else(PoisonError::into_inner);
            if is_request {
                *known = known.or_else(|| self.takes_trigger(&piece[..read]));
            }
            let now = *known;
            drop(known);
            match (now, is_request) {
                // The server has answered: what was asked is done, and nobody will hear of it.
                (Some(Fate::AnswerLost), false) => {
                    self.state().cuts_done += 1;
                    break;
                }
                (Some(Fate::AnswerKept), false) | (Some(Fate::RequestKept), true) => {
                    self.keep_back(link);
                    break;
                }
                (Some(_), _) | (None, _) => {}
            }
            if to.write_all(&piece[..read]).is_err() {
                break;
            }
        }
        close(&from, &to);
    }

    /// Waits while everything is held back. False when the link was cut meanwhile.
    fn may_pass(&self, link: u64) -> bool {
        let is_there = |state: &State| state.links.iter().any(|(number, ..)| *number == link);
        let state = self.state();
        let late = Instant::now() + state.delay;
        let mut state =
            self.changed.wait_while(state, |state| state.is_stalled && is_there(state)).unwrap_or_else(PoisonError::into_inner);
        while let Some(rest) = late.checked_duration_since(Instant::now()).filter(|_| is_there(&state)) {
            state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        is_there(&state)
    }

    /// Until all is well again, or the link is cut.
    fn keep_back(&self, link: u64) {
        let mut state = self.state();
        state.is_keeping = true;
        self.changed.notify_all();
        let is_kept = |state: &mut State| state.is_keeping && state.links.iter().any(|(number, ..)| *number == link);
        drop(self.changed.wait_while(state, is_kept));
    }

    fn takes_trigger(&self, request: &[u8]) -> Option<Fate> {
        let mut state = self.state();
        let is_it = state
            .trigger
            .as_ref()
            .is_some_and(|(bytes, _)| request.windows(bytes.len()).any(|window| window == bytes.as_slice()));
        if is_it { state.trigger.take().map(|(_, fate)| fate) } else { None }
    }
}

fn close(client: &TcpStream, server: &TcpStream) {
    // Either may be closed already.
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each piece with the same, and says how much it heard.
    fn echo() -> (u16, Arc<Mutex<Vec<u8>>>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = heard.clone();
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let hears = hears.clone();
                std::thread::spawn(move || {
                    let mut piece = [0; 100];
                    while let Ok(read) = client.read(&mut piece) {
                        hears.lock().unwrap().extend_from_slice(&piece[..read]);
                        if read == 0 || client.write_all(&piece[..read]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        (port, heard)
    }

    fn exchange(link: &mut TcpStream, text: &[u8]) -> Option<Vec<u8>> {
        link.write_all(text).ok()?;
        let mut answer = vec![0; text.len()];
        link.read_exact(&mut answer).ok()?;
        Some(answer)
    }

    #[test]
    fn it_passes_cuts_refuses_and_loses_answers() {
        let (port, heard) = echo();
        let proxy = Proxy::to(port).unwrap();
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        let mut link = connect();
        assert_eq!(exchange(&mut link, b"one").unwrap(), b"one");
        proxy.cut();
        assert!(exchange(&mut link, b"lost").is_none());
        proxy.go_down();
        assert!(exchange(&mut connect(), b"refused").is_none());
        proxy.heal();
        let mut link = connect();
        proxy.cut_when_answered(b"COMMIT");
        assert_eq!(exchange(&mut link, b"two").unwrap(), b"two");
        assert!(exchange(&mut link, b"COMMIT 1").is_none());
        assert_eq!(proxy.cuts_when_answered(), 1);
        assert_eq!(exchange(&mut connect(), b"COMMIT 2").unwrap(), b"COMMIT 2");
        assert_eq!(heard.lock().unwrap().as_slice(), b"onetwoCOMMIT 1COMMIT 2");
    }

    #[test]
    fn what_is_held_back_goes_on_when_all_is_well_again() {
        let (port, _) = echo();
        let proxy = Proxy::to(port).unwrap();
        let mut link = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        proxy.stall();
        link.write_all(b"held").unwrap();
        link.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut answer = [0; 4];
        assert!(link.read_exact(&mut answer).is_err(), "nothing comes through a black hole");
        proxy.delay(Duration::from_millis(1));
        link.set_read_timeout(None).unwrap();
        proxy.heal();
        link.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"held");
    }
}
