//! The post between a CRM and us: notices get lost, come twice, late and in a wrong order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::daemon;
use crate::messy::Dice;

/// Of a hundred notices, so many are lost on the way.
const LOST: u64 = 15;
/// So many come twice.
const DOUBLED: u64 = 15;
/// So many come late.
const DELAYED: u64 = 25;
const LONGEST_DELAY_MS: u64 = 4_000;
/// Letters on their way at once.
const CARRIERS: usize = 6;

/// Carries notices to one daemon.
pub struct Post {
    dice: Dice,
    address: SocketAddr,
    target: String,
    runtime: tokio::runtime::Handle,
    carriers: Arc<Semaphore>,
    tasks: TaskTracker,
    tally: Arc<Mutex<Tally>>,
}

/// What became of all notices.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub lost: usize,
    pub doubled: usize,
    pub delayed: usize,
    /// Nobody took them: the daemon was dead, or died over them.
    pub refused: usize,
    /// HTTP status -> how often it was answered.
    pub answers: BTreeMap<u16, usize>,
    /// The slowest answer.
    pub slowest: Duration,
}

impl Post {
    /// Letters go to this address of a daemon that need not run yet.
    pub fn new(dice: Dice, address: SocketAddr, target: String) -> Self {
        Self {
            dice,
            address,
            target,
            runtime: tokio::runtime::Handle::current(),
            carriers: Arc::new(Semaphore::new(CARRIERS)),
            tasks: TaskTracker::new(),
            tally: Arc::default(),
        }
    }

    /// Sends a notice, content type and body, or does whatever a post does to it.
    pub fn send(&mut self, content_type: &str, body: &str) {
        if self.dice.below(100) < LOST {
            self.tally.lock().unwrap().lost += 1;
            return;
        }
        let copies = 1 + usize::from(self.dice.below(100) < DOUBLED);
        self.tally.lock().unwrap().doubled += copies - 1;
        for _ in 0..copies {
            let is_late = self.dice.below(100) < DELAYED;
            let delay = u64::from(is_late) * self.dice.below(LONGEST_DELAY_MS);
            self.tally.lock().unwrap().delayed += usize::from(is_late);
            self.carry(content_type, body, Duration::from_millis(delay));
        }
    }

    /// Waits until the last letter has arrived or is lost; tells what became of all.
    pub async fn close(&self) -> Tally {
        self.tasks.close();
        self.tasks.wait().await;
        self.tally.lock().unwrap().clone()
    }

    fn carry(&self, content_type: &str, body: &str, delay: Duration) {
        let letter = daemon::posting(&self.target, content_type, body.as_bytes());
        let (address, tally) = (self.address, Arc::clone(&self.tally));
        let carriers = Arc::clone(&self.carriers);
        let carried = async move {
            tokio::time::sleep(delay).await;
            let _carrier = carriers.acquire_owned().await.unwrap();
            let began = Instant::now();
            let sent = move || daemon::ask(address, &letter);
            let answer = tokio::task::spawn_blocking(sent).await.unwrap();
            let mut tally = tally.lock().unwrap();
            match answer {
                Ok(answer) => {
                    *tally.answers.entry(answer.status).or_default() += 1;
                    tally.slowest = tally.slowest.max(began.elapsed());
                }
                Err(_) => tally.refused += 1,
            }
        };
        self.tasks.spawn_on(carried, &self.runtime);
    }
}
