//! Tells whoever looks on that the journal has changed: at once, and then not again for a while.

use std::time::Duration;

use tokio::sync::watch;

use super::Journal;

/// Behind a word the next one waits so long: in a busy office all calls of that time make one.
const PAUSE: Duration = Duration::from_secs(2);

/// The number of the newest change that is in the journal, as everybody who looks on is told it. Who
/// reads the journal behind that word finds the change.
#[derive(Clone)]
pub struct Feed(watch::Receiver<i64>);

impl Feed {
    /// Follows the journal until it ends. To be called on a runtime.
    pub fn of(journal: &Journal) -> Self {
        let mut changes = journal.changes();
        let (sender, told) = watch::channel(*changes.borrow_and_update());
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                sender.send_replace(*changes.borrow_and_update());
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self(told)
    }

    /// What was told last.
    pub fn told(&self) -> i64 {
        *self.0.borrow()
    }

    /// Waits for a word other than `known`; `None` once the journal has ended.
    pub async fn told_after(&mut self, known: i64) -> Option<i64> {
        let told = self.0.wait_for(|told| *told != known).await;
        told.ok().map(|told| *told)
    }
}
