//! A daemon that dies and is started again in the same folder, and how it is asked meanwhile.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::crm::Crm;
use crate::daemon::{self, Answer, Daemon, Site, request};
use crate::messy::Dice;

/// A life lasts at least this long, and up to [`LONGEST_LIFE_MS`].
const SHORTEST_LIFE_MS: u64 = 800;
const LONGEST_LIFE_MS: u64 = 9_000;
/// For how long something grave ails the CRM before a daemon dies of something else.
const GRAVE_MS: u64 = 500;
const LONGEST_DEATH_MS: u64 = 2_500;

/// A daemon's lives, one after another.
pub struct Lives {
    site: Site,
    daemon: Daemon,
    pulse: Pulse,
    dice: Dice,
}

/// Asks a daemon that may die over it.
#[derive(Clone)]
pub struct Pulse {
    address: SocketAddr,
    /// Deaths and births: odd while it is dying or dead.
    turns: Arc<AtomicUsize>,
}

impl Lives {
    /// Its first one; nothing is mirrored yet.
    pub fn begin(site: Site, dice: Dice) -> Self {
        let daemon = Daemon::start_unready(&site);
        let pulse = Pulse {
            address: site.address,
            turns: Arc::default(),
        };
        Self {
            site,
            daemon,
            pulse,
            dice,
        }
    }

    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    pub fn daemon(&self) -> &Daemon {
        &self.daemon
    }

    pub fn data_dir(&self) -> PathBuf {
        self.site.path("data")
    }

    /// How often it was killed.
    pub fn kills(&self) -> usize {
        self.pulse.turns.load(Ordering::SeqCst) / 2
    }

    /// Kills it at random moments and starts it again, until `is_over`.
    pub fn die_until(&mut self, crm: &Crm, is_over: &AtomicBool) {
        loop {
            let span = LONGEST_LIFE_MS - SHORTEST_LIFE_MS;
            let life = SHORTEST_LIFE_MS + self.dice.below(span);
            let born = Instant::now();
            while born.elapsed() < Duration::from_millis(life) {
                if is_over.load(Ordering::Acquire) {
                    return;
                }
                self.check_alive();
                std::thread::sleep(Duration::from_millis(5));
            }
            self.wait_for_tokens(crm);
            let is_grave = self.dice.below(4) == 0;
            if is_grave {
                crm.upset_gravely(&mut self.dice);
                std::thread::sleep(Duration::from_millis(self.dice.below(GRAVE_MS)));
            }
            self.kill();
            crm.hold_access(false);
            if is_grave {
                crm.recover();
            }
            if self.dice.below(2) == 0 {
                let death = self.dice.below(LONGEST_DEATH_MS);
                std::thread::sleep(Duration::from_millis(death));
            }
            self.start();
        }
    }

    /// Kills it, and starts it with another configuration.
    pub fn kill_and_start_with(&mut self, crm: &Crm, crms: &str) {
        self.wait_for_tokens(crm);
        self.kill();
        crm.hold_access(false);
        self.site.configure(crms);
        self.start();
    }

    /// Lets it end as an administrator would.
    pub fn stop(&mut self) {
        self.check_alive();
        assert_eq!(self.daemon.stop(), Some(0), "{}", self.daemon.log());
    }

    /// Starts it after [`Self::stop`] or a kill.
    pub fn start(&mut self) {
        self.daemon = Daemon::start_unready(&self.site);
        let turns = &self.pulse.turns;
        turns.store(
            turns.load(Ordering::SeqCst).next_multiple_of(2),
            Ordering::SeqCst,
        );
    }

    /// Waits until the daemon has access that a death would not cost it, and keeps it so.
    fn wait_for_tokens(&mut self, crm: &Crm) {
        crm.hold_access(true);
        daemon::wait_for("an exchange of tokens", || {
            self.check_alive();
            (!crm.is_renewing()).then_some(())
        });
    }

    fn kill(&mut self) {
        self.check_alive();
        self.pulse.turns.fetch_add(1, Ordering::SeqCst);
        self.daemon.kill();
        let log = self.daemon.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    /// It ends by our hand alone.
    fn check_alive(&mut self) {
        assert!(self.daemon.is_alive(), "it ended: {}", self.daemon.log());
    }
}

impl Pulse {
    /// Its answer; `None` where it was dead, or died over the question. Fails the test when it
    /// lived on without an answer.
    pub fn ask(&self, target: &str) -> Option<Answer> {
        let before = self.turns.load(Ordering::SeqCst);
        match daemon::ask(self.address, &request("GET", target)) {
            Ok(answer) => Some(answer),
            Err(error) => {
                let after = self.turns.load(Ordering::SeqCst);
                let was_alive = before == after && before.is_multiple_of(2);
                assert!(!was_alive, "{target}: {error}");
                None
            }
        }
    }
}
