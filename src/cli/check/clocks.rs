//! `pryamo check` and the clocks: this machine's against each CRM's, and the zone of the office.

use std::path::PathBuf;
use std::time::Duration;

use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;

use crate::config::{Config, CrmTable};
use crate::crm::{self, Finding};

/// A difference up to this harms nothing.
const TOLERATED: SignedDuration = SignedDuration::from_secs(60);
/// How long a CRM may take to tell its time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Compares the clocks; a CRM that does not tell its time was told of elsewhere.
pub(super) async fn check(config: &Config, clock: impl Fn() -> Timestamp) -> Vec<Finding> {
    let mut found = Vec::new();
    for table in &config.crms {
        let asked = clock();
        if let Some(theirs) = time_of(config, table).await {
            // The answer was written somewhere between the two moments.
            let (behind, ahead) = (theirs.duration_since(clock()), asked.duration_since(theirs));
            found.push(judge(table.name.as_str(), behind, ahead));
        }
    }
    found.extend(zone(config, clock()));
    found
}

/// What the CRM's server has for its header `Date`; its address is asked, and none of its methods.
async fn time_of(config: &Config, table: &CrmTable) -> Option<Timestamp> {
    let url = table.own.get("url").and_then(toml::Value::as_str)?;
    let mut url = Url::parse(url.trim()).ok()?;
    url.set_path("/");
    let folder = config.path.as_deref().and_then(std::path::Path::parent);
    let ca_file = table.own.get("ca_file").and_then(toml::Value::as_str);
    let ca_file =
        ca_file.map(|file| folder.map_or_else(|| PathBuf::from(file), |at| at.join(file)));
    let client = crm::http_client(ca_file.as_deref()).ok()?;
    let answer = client.head(url).timeout(PATIENCE).send().await.ok()?;
    let date = answer.headers().get(reqwest::header::DATE)?.to_str().ok()?;
    rfc2822::DateTimeParser::new().parse_timestamp(date).ok()
}

/// `behind` and `ahead` say how far this machine is at least, negative when it is not.
fn judge(name: &str, behind: SignedDuration, ahead: SignedDuration) -> Finding {
    let (off, how) = if behind > ahead {
        (behind, "behind")
    } else {
        (ahead, "ahead of")
    };
    if off <= TOLERATED {
        return Finding::good(format!("this machine's clock and that of {name} agree"));
    }
    let off = match off.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    };
    Finding::warning(
        format!(
            "this machine's clock is {off} {how} that of {name}: working hours and absences are judged by a wrong time"
        ),
        "let the time be kept by itself: `timedatectl set-ntp true`",
    )
}

/// By which zone working hours and absences are judged.
fn zone(config: &Config, now: Timestamp) -> Option<Finding> {
    let system = TimeZone::system();
    let office = config.office.zone();
    let (ours, theirs) = (system.to_offset(now), office.to_offset(now));
    if config.office.time_zone.is_some() {
        return (ours != theirs).then(|| {
            Finding::good(format!(
                "the office keeps UTC{theirs}, this machine UTC{ours}: hours in the configuration are the office's"
            ))
        });
    }
    let has_hours = config.rules.contains_key("hours")
        || config.crms.iter().any(|table| {
            let mut rows = table.common.employees.values();
            rows.any(|row| row.hours.is_some())
        });
    (has_hours && ours.is_zero()).then(|| {
        Finding::warning(
            "working hours are judged in UTC, which is this machine's zone",
            "name the office's: [office] time_zone = \"Europe/Moscow\" (or \"UTC\", if that is meant)",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm::Level;

    #[test]
    fn only_a_clock_that_is_far_off_is_told_of() {
        let seconds = SignedDuration::from_secs;
        for (behind, ahead, level, words) in [
            (0, 0, Level::Good, "agree"),
            (60, -60, Level::Good, "agree"),
            (-70, 61, Level::Warning, "61 s ahead of"),
            (7300, -7300, Level::Warning, "2 h behind"),
        ] {
            let found = judge("sales", seconds(behind), seconds(ahead));
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.text.contains(words), "{found:?}");
        }
    }

    #[test]
    fn hours_without_a_zone_are_told_of_where_the_machine_keeps_utc() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let told = |text: &str| zone(&Config::parse(text, None, &[]).unwrap(), now);
        assert_eq!(told(""), None);
        let moscow = told("[office]\ntime_zone = \"Asia/Tokyo\"\n");
        if let Some(found) = moscow {
            assert_eq!(found.level, Level::Good);
            assert!(found.text.contains("UTC+09"), "{found:?}");
        }
    }
}
