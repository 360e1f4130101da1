//! `pryamo check` and the Manager Interface: may we listen?

use crate::config::Config;
use crate::crm::Finding;
use crate::fault;
use crate::pbx::ami::{self, AmiError};

/// What is told, and the extensions that have a hint.
pub(super) async fn check(config: &Config) -> (Finding, Option<Vec<String>>) {
    let Some(address) = config.ami.address else {
        let told = Finding::good(
            "is not asked ([ami] has no `address`): phones that are off or busy are rung in vain",
        );
        return (told, None);
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
            return (Finding::fault(fault::told(&error), mend), None);
        }
    };
    let told = Finding::good(format!(
        "{address} tells how phones stand: {} hints",
        hinted.len()
    ));
    (told, Some(hinted))
}
