//! Answers of the writers to those who wait for a commit.
//!
//! A commit answers many callers at once. Waking each of them from the writer's thread would cost a system call each,
//! so the callers of one runtime are woken together, by a task of their own runtime.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

thread_local! {
    /// The relay of the runtime that this thread runs, if it has one.
    static RELAY: RefCell<Option<Arc<Relay>>> = const { RefCell::new(None) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tasks of one runtime that are to be woken, and the task that does it.
#[derive(Debug, Default)]
struct Relay {
    state: Mutex<RelayState>,
}

#[derive(Debug, Default)]
struct RelayState {
    due: Vec<Waker>,
    relaying: Option<Waker>,
}

impl Relay {
    fn wake_all(&self, mut wakers: Vec<Waker>) {
        let mut state = lock(&self.state);
        state.due.append(&mut wakers);
        let relaying = state.relaying.take();
        drop(state);
        if let Some(relaying) = relaying {
            relaying.wake();
        }
    }
}

/// Wakes, on the runtime that this runs on, everybody there who waits for a commit. Never done; to be spawned once on
/// each single-threaded runtime before it takes requests. Without it every caller is woken by itself.
pub async fn relay_answers() {
    let relay = Arc::new(Relay::default());
    RELAY.set(Some(Arc::clone(&relay)));
    poll_fn(|context| {
        let mut state = lock(&relay.state);
        let due = std::mem::take(&mut state.due);
        state.relaying = Some(context.waker().clone());
        drop(state);
        due.into_iter().for_each(Waker::wake);
        Poll::<()>::Pending
    })
    .await;
}

#[derive(Debug)]
enum Slot<T> {
    /// Nobody has asked yet.
    Empty,
    Waiting(Waker, Option<Arc<Relay>>),
    Answered(T),
    /// Taken, or never to come.
    Over,
}

/// Where an answer will be.
#[derive(Debug)]
pub(super) struct Promise<T>(Arc<Mutex<Slot<T>>>);

/// The other end of a [`Promise`]; dropped without an answer, there will be none.
#[derive(Debug)]
pub(super) struct Answerer<T>(Option<Arc<Mutex<Slot<T>>>>);

/// A promise and who must keep it.
pub(super) fn promise<T>() -> (Answerer<T>, Promise<T>) {
    let slot = Arc::new(Mutex::new(Slot::Empty));
    (Answerer(Some(Arc::clone(&slot))), Promise(slot))
}

impl<T> Future for Promise<T> {
    /// None when there is no answer to come.
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut slot = lock(&self.0);
        match std::mem::replace(&mut *slot, Slot::Over) {
            Slot::Answered(answer) => Poll::Ready(Some(answer)),
            Slot::Over => Poll::Ready(None),
            Slot::Empty | Slot::Waiting(..) => {
                let relay = RELAY.with_borrow(Clone::clone);
                *slot = Slot::Waiting(context.waker().clone(), relay);
                Poll::Pending
            }
        }
    }
}

/// Those whom a commit has answered and who are to be woken.
#[derive(Debug, Default)]
pub(super) struct Wakes {
    /// By runtime; there are few.
    relayed: Vec<(Arc<Relay>, Vec<Waker>)>,
}

impl Wakes {
    fn add(&mut self, waker: Waker, relay: Option<Arc<Relay>>) {
        let Some(relay) = relay else { return waker.wake() };
        match self.relayed.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &relay)) {
            Some((_, wakers)) => wakers.push(waker),
            None => self.relayed.push((relay, vec![waker])),
        }
    }

    /// Wakes them.
    pub fn wake(self) {
        for (relay, wakers) in self.relayed {
            relay.wake_all(wakers);
        }
    }
}

impl<T> Answerer<T> {
    /// Gives the answer; whoever waits for it is woken with `wakes`.
    pub fn answer(mut self, answer: T, wakes: &mut Wakes) {
        let Some(slot) = self.0.take() else { return };
        if let Slot::Waiting(waker, relay) = std::mem::replace(&mut *lock(&slot), Slot::Answered(answer)) {
            wakes.add(waker, relay);
        }
    }
}

impl<T> Drop for Answerer<T> {
    fn drop(&mut self) {
        let Some(slot) = self.0.take() else { return };
        if let Slot::Waiting(waker, _) = std::mem::replace(&mut *lock(&slot), Slot::Over) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    fn answer_all(answerers: Vec<Answerer<usize>>) {
        let mut wakes = Wakes::default();
        for (number, answerer) in answerers.into_iter().enumerate() {
            answerer.answer(number, &mut wakes);
        }
        wakes.wake();
    }

    #[test]
    fn everybody_gets_their_own_answer_with_and_without_a_relay() {
        for has_relay in [true, false] {
            let (answerers, promises): (Vec<_>, Vec<_>) = (0..100).map(|_| promise::<usize>()).unzip();
            runtime().block_on(async {
                if has_relay {
                    tokio::spawn(relay_answers());
                    tokio::task::yield_now().await;
                }
                let waiting: Vec<_> = promises.into_iter().map(tokio::spawn).collect();
                tokio::task::yield_now().await;
                let answering = std::thread::spawn(move || answer_all(answerers));
                for (number, task) in waiting.into_iter().enumerate() {
                    assert_eq!(task.await.unwrap(), Some(number));
                }
                answering.join().unwrap();
            });
            RELAY.set(None);
        }
    }

    #[test]
    fn an_answer_that_came_first_is_kept_and_one_that_never_comes_is_told() {
        let (answerer, kept) = promise();
        answerer.answer(7, &mut Wakes::default());
        assert_eq!(runtime().block_on(kept), Some(7));
        let (answerer, broken) = promise::<u8>();
        drop(answerer);
        assert_eq!(runtime().block_on(broken), None);
        let (answerer, broken) = promise::<u8>();
        let ending = std::thread::spawn(move || drop(answerer));
        assert_eq!(runtime().block_on(broken), None);
        ending.join().unwrap();
    }
}
