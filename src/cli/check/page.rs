//! `pryamo check` and the operators' page: who may see it, and what stands between.

use crate::config::Config;
use crate::crm::Finding;
use crate::fault;
use crate::page::users::Users;

/// Who can sign in, and whether their passwords travel in the open.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    if !config.page.enabled {
        return vec![Finding::good("switched off (`page.enabled`)")];
    }
    let address = config.page.listen.unwrap_or(config.forward.listen);
    let mut found = vec![people(config, &address.to_string())];
    if !address.ip().is_loopback() && !config.page.https {
        found.push(Finding::warning(
            format!("{address} takes passwords from other machines without encryption"),
            "put a proxy with a certificate before it: `page.listen = \"127.0.0.1:8079\"`, and `page.https = true`",
        ));
    }
    found
}

fn people(config: &Config, address: &str) -> Finding {
    match Users::of(&config.data_dir).all() {
        Ok(all) if all.is_empty() => Finding::good(format!(
            "http://{address}/ shows itself to nobody yet; `pryamo password` sets who may see it"
        )),
        Ok(all) => Finding::good(format!("http://{address}/, {} may sign in", all.len())),
        Err(error) => Finding::fault(
            fault::told(&error),
            "run this as root or the daemon's own user; if the file is damaged, remove it and run `pryamo password`",
        ),
    }
}
