//! One life: the storm of changes and troubles, the calm behind it, and the judgement.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::change::{Life, Nature};
use super::compare::{CRM, Truth, configured_extension, email, told};
use super::crm::{Crm, Kind};
use super::lives::Lives;
use super::post::{Post, Tally};
use crate::daemon::{Line, Site, value};
use crate::messy::Dice;
use crate::world::SharedWorld;

/// Between two handfuls of changes.
const TICK: Duration = Duration::from_millis(20);
/// Changes in a tick, on average.
const CHANGES_PER_TICK: u64 = 6;
/// How long the mirror may take to become right once all is calm: several walks, and the rest that
/// a failed part takes before it tries again.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long nothing more is asked of a daemon whose answers are right already, so that it may find
/// what no answer shows: two walks.
const SETTLING: Duration = Duration::from_secs(12);
/// Noon of that day, UTC; a CRM's clock is up to two hours away from ours.
const NOON: i64 = 1_795_348_800;
const HOURS: u64 = 3_600;
const SECRET: &str = "made-up";

/// What a CRM tells of its changes by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notices {
    /// Nothing.
    None,
    /// It sends notices to us.
    Sent,
    /// It keeps them for us.
    Kept,
}

/// A CRM and how it is mirrored.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub kind: Kind,
    pub notices: Notices,
    /// Whether all cards are walked over again and again. If not, notices and changes alone must
    /// make the mirror right, so nothing may change without a word.
    pub walks: bool,
    /// Whether unknown callers are asked for live during the storm. Never in the calm: what a
    /// call brings in would hide what the mirror has missed.
    pub asks_live: bool,
}

/// What goes on besides the changes.
struct Storm<'a> {
    crm: &'a Crm,
    world: &'a SharedWorld,
    is_over: AtomicBool,
    /// Numbers to call from.
    callers: Mutex<Vec<u64>>,
    calls: AtomicUsize,
    troubles: usize,
}

impl Case {
    /// Lives through so many changes; fails when the mirror is wrong in the end.
    pub async fn live(&self, seed: u64, changes: usize) {
        println!("{}: seed {seed:#x}", self.name);
        let mut dice = Dice(seed ^ 0xca11);
        let shift =
            i64::try_from(dice.below(4 * HOURS)).unwrap() - i64::try_from(2 * HOURS).unwrap();
        let kind = self.kind;
        let nature = Nature {
            lists: kind.lists(),
            has_extensions: kind.has_extensions(),
            is_candid: !self.walks,
        };
        let (mut life, world) = Life::begin(seed, nature, NOON + shift);
        let world = world.shared();
        let crm = Crm::start(
            kind,
            SharedWorld::clone(&world),
            NOON + shift,
            Dice(seed ^ 0x317e),
        )
        .await;
        let site = Site::new(&self.config(&crm, self.asks_live));
        let target = format!("/hooks/{CRM}/{SECRET}");
        let mut post = Post::new(Dice(dice.below(u64::MAX)), site.address, target);
        let mut lives = Lives::begin(site, Dice(dice.below(u64::MAX)));
        let mut storm = Storm {
            crm: &crm,
            world: &world,
            is_over: AtomicBool::new(false),
            callers: Mutex::default(),
            calls: AtomicUsize::new(0),
            troubles: 0,
        };
        let began = Instant::now();
        let sender = (self.notices == Notices::Sent).then_some(&mut post);
        storm.rage(&mut life, sender, &mut lives, changes, &mut dice);
        crm.recover();
        self.check_post(&post.close().await);
        println!(
            "{}: {changes} changes in {:.0?}, {} troubles, {} kills, {} calls, {} requests, {} answers spoilt on the wire",
            self.name,
            began.elapsed(),
            storm.troubles,
            lives.kills(),
            storm.calls.load(Ordering::Relaxed),
            crm.requests(),
            crm.spoilt(),
        );
        if self.asks_live {
            lives.kill_and_start_with(&crm, &self.config(&crm, false));
        }
        let truth = Truth::of(&world.read().unwrap(), &life, kind);
        self.judge(&mut lives, &truth).await;
        let breaches = crm.violations();
        assert!(breaches.is_empty(), "{}: {}", self.name, told(&breaches));
    }

    /// Nothing that arrived was turned away.
    fn check_post(&self, tally: &Tally) {
        if self.notices != Notices::Sent {
            return;
        }
        println!("{}: {tally:?}", self.name);
        let taken = tally.answers.get(&200).copied().unwrap_or(0);
        assert!(taken > 0, "{}: no notice arrived, {tally:?}", self.name);
        assert_eq!(tally.answers.len(), 1, "{}: {tally:?}", self.name);
        assert!(tally.lost > 0 && tally.doubled > 0 && tally.delayed > 0);
    }

    /// Waits until all calls are answered right, then looks at each card.
    async fn judge(&self, lives: &mut Lives, truth: &Truth) {
        let began = Instant::now();
        let right_after = wait_for_right_calls(lives, truth);
        tokio::time::sleep(SETTLING).await;
        loop {
            lives.stop();
            let differences = truth.differences(&lives.data_dir(), self.kind).await;
            let took = began.elapsed();
            if differences.is_empty() {
                println!(
                    "{}: calls right {right_after:.1?} after the storm, all {} cards {took:.1?}",
                    self.name,
                    truth.cards(),
                );
                return;
            }
            assert!(
                took < PATIENCE,
                "{}: calls right after {right_after:?}, but {took:.0?} after the storm {}",
                self.name,
                told(&differences)
            );
            println!("{}: after {took:.1?} {}", self.name, told(&differences));
            lives.start();
            tokio::time::sleep(SETTLING).await;
        }
    }

    fn config(&self, crm: &Crm, asks_live: bool) -> String {
        let mut text = format!(
            "[log]\nlevel = \"warn\"\n[match]\norder = [{}]\nlive_lookup_ms = {}\n\
             [sync]\nchanges_every_seconds = 1\nemployees_every_seconds = 1\n\
             walk_every_seconds = {}\nnews_every_seconds = 1\nsecond_look_seconds = 1\n\
             # More is deleted in these seconds than people delete in a month.\n\
             most_deleted_percent = 90\n\
             [[crm]]\nname = \"{CRM}\"\nlimit_share = {}\n{}",
            if self.kind.is_bitrix24() {
                r#""contact", "company", "lead", "deal""#
            } else {
                r#""contact", "company", "deal""#
            },
            if asks_live { 300 } else { 0 },
            if self.walks { 5 } else { 0 },
            // The account counts what arrives in any third of a second, and a daemon's birth holds
            // up a small machine for some of it.
            if self.kind.is_bitrix24() { 0.8 } else { 0.6 },
            crm.table(),
        );
        if self.notices == Notices::Sent {
            writeln!(text, "hook_secret = \"{SECRET}\"").unwrap();
        }
        if !self.kind.has_extensions() {
            text.push_str("[crm.employees]\n");
            for user in 0..2_000 {
                if let Some(extension) = configured_extension(user) {
                    let who = email(user);
                    writeln!(text, "\"{who}\" = {{ extension = \"{extension}\" }}").unwrap();
                }
            }
        }
        text
    }
}

impl Storm<'_> {
    /// Makes all changes, one of which is a trouble now and then; the daemon dies and is called
    /// meanwhile.
    fn rage(
        &mut self,
        life: &mut Life,
        mut post: Option<&mut Post>,
        lives: &mut Lives,
        changes: usize,
        dice: &mut Dice,
    ) {
        let (pulse, mut killed, mut called) = (lives.pulse(), false, Dice(dice.below(u64::MAX)));
        let this = &*self;
        let mut troubles = 0;
        std::thread::scope(|scope| {
            let killing = scope.spawn(|| lives.die_until(this.crm, &this.is_over));
            scope.spawn(|| this.call(&pulse, &mut called));
            let (mut made, mut trouble_ticks) = (0, 0);
            while made < changes && !killed {
                for _ in 0..dice.below(2 * CHANGES_PER_TICK + 1) {
                    this.change(life, post.as_deref_mut());
                    made += 1;
                }
                if dice.below(50) == 0 {
                    *this.callers.lock().unwrap() = life.ever().iter().copied().collect();
                    this.crm.pass_time(1);
                    this.crm.expire_access_tokens();
                }
                trouble_ticks = match trouble_ticks {
                    0 if dice.below(60) == 0 => {
                        this.crm.upset(dice);
                        troubles += 1;
                        5 + dice.below(60)
                    }
                    0 => 0,
                    1 => {
                        this.crm.recover();
                        0
                    }
                    ticks => ticks - 1,
                };
                std::thread::sleep(TICK);
                // A daemon that has ended by itself is told of at once.
                killed = killing.is_finished();
            }
            this.is_over.store(true, Ordering::Release);
        });
        self.troubles = troubles;
    }

    /// One change, as the CRM's own record and its notices tell of it.
    fn change(&self, life: &mut Life, mut post: Option<&mut Post>) {
        let happened = life.change(&mut self.world.write().unwrap(), self.crm.now());
        for one in &happened {
            self.crm.happened(one);
            if let Some(post) = &mut post {
                for (content_type, body) in self.crm.hook_bodies(one) {
                    post.send(&content_type, &body);
                }
            }
        }
    }

    /// Calls the daemon all the time: while it lives, it answers 200.
    fn call(&self, pulse: &super::lives::Pulse, dice: &mut Dice) {
        while !self.is_over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(5));
            let number = {
                let callers = self.callers.lock().unwrap();
                match callers.len() as u64 {
                    0 => continue,
                    // Now and then somebody whom nobody knows.
                    _ if dice.below(10) == 0 => 79_090_000_000 + dice.below(1_000_000),
                    length => callers[usize::try_from(dice.below(length)).unwrap()],
                }
            };
            if let Some(answer) = pulse.ask(&format!("/forward?phone=%2B{number}")) {
                assert_eq!(answer.status, 200, "{number}: {answer:?}");
                self.calls.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Waits until `/forward` names the right extension for every number; how long that took.
fn wait_for_right_calls(lives: &Lives, truth: &Truth) -> Duration {
    let began = Instant::now();
    loop {
        let mut line = Line::open(lives.daemon());
        let mut wrong = Vec::new();
        for (number, expected) in truth.extensions() {
            let answer = line.forward(&format!("phone=%2B{number}"));
            // A known caller whom nobody can take has an empty one.
            let extension = value(&answer, "number").filter(|number| !number.is_empty());
            if extension != *expected {
                wrong.push(format!(
                    "+{number}: {expected:?} is right, {extension:?} was answered"
                ));
            }
        }
        if wrong.is_empty() {
            return began.elapsed();
        }
        if began.elapsed() > PATIENCE {
            println!(
                "{:.0?} after the storm calls are wrong, {}",
                PATIENCE,
                told(&wrong)
            );
            return began.elapsed();
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
