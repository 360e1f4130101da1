//! `pryamo check` and the Manager Interface: may we listen, and does each extension have a hint?

use crate::config::Config;
use crate::crm::Finding;
use crate::fault;
use crate::pbx::ami::{self, AmiError};
use crate::serve;

/// More extensions than fit a line.
const TOLD_MOST: usize = 10;

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let Some(address) = config.ami.address else {
        return vec![Finding::good(
            "is not asked ([ami] has no `address`): phones that are off or busy are rung in vain",
        )];
    };
    let hinted = match ami::probe(&config.ami).await {
        Ok(hinted) => hinted,
        Err(error) => {
            let mend = match &error {
                AmiError::Unreachable(..) | AmiError::Line(_) => {
                    "look at `enabled`, `bindaddr` and `port` in manager.conf, and at [ami] `address`".to_owned()
                }
                AmiError::Refused { .. } | AmiError::NoRight { .. } => {
                    let lines = config.ami.manager_lines();
                    let lines = lines.trim_end().replace('\n', "\n         ");
                    format!(
                        "write this into manager.conf (FreePBX: manager_custom.conf), then `asterisk -rx 'manager reload'`:\n         {lines}"
                    )
                }
            };
            return vec![Finding::fault(fault::told(&error), mend)];
        }
    };
    let mut found = vec![Finding::good(format!(
        "{address} tells how phones stand: {} hints",
        hinted.len()
    ))];
    // Known only while no daemon has the directory; the running one is not asked for it here. A folder
    // that is not there is not made: it would belong to whoever runs this command.
    if config.data_dir.exists()
        && let Ok(directory) = serve::open_directory(config)
    {
        let roster = directory.roster();
        let all = roster.all();
        let own = all.iter().filter(|one| one.active);
        let own = own.filter_map(|one| one.extension.as_ref().ok());
        let mut without: Vec<&str> = own
            .map(crate::call::Extension::as_str)
            .filter(|extension| !hinted.iter().any(|hint| hint == extension))
            .collect();
        without.sort_unstable();
        without.dedup();
        if !without.is_empty() {
            let more = without.len().saturating_sub(TOLD_MOST);
            without.truncate(TOLD_MOST);
            let more = if more > 0 {
                format!(" and {more} more")
            } else {
                String::new()
            };
            found.push(Finding::warning(
                format!(
                    "no hint for {}{more}: the states of these phones may be unknown",
                    without.join(", ")
                ),
                format!(
                    "add hints in {}, or name their context in `ami.contexts`",
                    config.ami.contexts.join(" or ")
                ),
            ));
        }
    }
    found
}
