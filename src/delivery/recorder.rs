//! The thread that writes down what came of attempts: the engine goes on sending while the disk works.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use crate::store::{Outcomes, Store};

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
            while let Ok(outcomes) = receiver.recv() {
                // The store has reported the fault, and ends the daemon: nothing more may be written.
                if store.record_outcomes(&outcomes).is_err() {
                    return;
                }
                // The engine has ended; the rest is written all the same.
                let _heard = done.send(());
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
