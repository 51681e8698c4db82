//! The thread that writes down what came of attempts: the engine goes on sending while the disk works.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::store::{Outcomes, Store};

/// After so long without outcomes the attempt log is made ready for an instant start.
const SETTLE_AFTER: Duration = Duration::from_secs(2);

/// The recorder; at most one batch is on its way at a time.
#[derive(Debug)]
pub(super) struct Recorder {
    sender: SyncSender<Outcomes>,
    thread: JoinHandle<()>,
    /// A batch is being written.
    pub is_busy: bool,
}

impl Recorder {
    /// Starts the thread; it says on `done` whenever a batch is on disk.
    pub fn start(store: Store, done: UnboundedSender<()>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<Outcomes>(1);
        let thread = std::thread::Builder::new().name("outcomes".to_owned()).spawn(move || {
            // Whether attempts were written since the attempt log was last made ready for an instant start.
            let mut is_unsettled = false;
            loop {
                let received = if is_unsettled { receiver.recv_timeout(SETTLE_AFTER) } else { receiver.recv().map_err(Into::into) };
                // The store has reported a fault, and ends the daemon: nothing more may be written.
                let written = match received {
                    Ok(outcomes) => store.record_outcomes(&outcomes).map(|()| {
                        is_unsettled = true;
                        // When the engine has ended, the rest is written all the same.
                        let _heard = done.send(());
                    }),
                    Err(RecvTimeoutError::Timeout) => store.settle_attempts().map(|()| is_unsettled = false),
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                if written.is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { sender, thread, is_busy: false })
    }

    /// Hands a batch over.
    pub fn record(&mut self, outcomes: Outcomes) {
        // Nobody takes it after a fault, which ends the daemon.
        let _taken = self.sender.send(outcomes);
        self.is_busy = true;
    }

    /// Waits until everything that was handed over is on disk.
    pub fn stop(self) {
        drop(self.sender);
        // A panic of the thread has been reported by its hook; there is nothing left to do here.
        let _ended = self.thread.join();
    }
}
