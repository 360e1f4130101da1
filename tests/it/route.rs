//! The router with a real directory and a CRM side that only watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use pryamo::call::IncomingCall;
use pryamo::config::Config;
use pryamo::decision::Reason;
use pryamo::directory::{Keep, Refresh, Refreshed};
use pryamo::phone::E164;
use pryamo::record::CrmName;
use pryamo::router::{Purpose, Router};
use pryamo::{serve, sync};

const LIVE_LOOKUP: Duration = Duration::from_millis(700);

/// Counts who asks, and finds nothing.
#[derive(Default)]
struct Watched {
    asked: AtomicUsize,
}

#[async_trait]
impl Refresh for Watched {
    async fn refresh(
        &self,
        _phone: E164,
        crms: &[CrmName],
        deadline: Duration,
        _keep: Keep,
    ) -> Vec<(CrmName, Refreshed)> {
        assert_eq!(deadline, LIVE_LOOKUP);
        self.asked.fetch_add(1, Ordering::Relaxed);
        crms.iter()
            .map(|crm| (crm.clone(), Refreshed::TooLate))
            .collect()
    }
}

/// Known, whether or not somebody can be rung: no CRM is asked. Unknown: asked once, with the
/// deadline of the configuration.
#[tokio::test]
async fn a_known_caller_never_waits_for_a_crm() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "data_dir = '{}'\n[match]\nlive_lookup_ms = {}\n\
         [[crm]]\nname = \"list\"\nkind = \"csv\"\nfile = \"x.csv\"\n",
        folder.path().display(),
        LIVE_LOOKUP.as_millis()
    );
    let config = Config::parse(&text, None, &[]).unwrap();
    let directory = serve::open_directory(&config).unwrap();
    let rows = "id;name;phone;responsible;extension\n\
                1;Иван;79161234501;Анна;101\n2;Мария;79161234502;Виктор;\n";
    let list = &config.crms[0];
    let region = config.region_of(list);
    sync::import::import(&*directory, &list.name, region, rows.as_bytes())
        .await
        .unwrap();
    let watched = Arc::new(Watched::default());
    let rules = config.open_rules().unwrap();
    let presence = Arc::new(pryamo::presence::Nothing);
    let router = Router::new(
        config.router_settings(),
        directory,
        watched.clone(),
        presence,
        rules,
    );
    for (phone, reason, asked) in [
        ("79161234501", Reason::Responsible, 0),
        ("79161234502", Reason::NobodyCanBeRung, 0),
        ("101", Reason::ShortNumber, 0),
        ("anonymous", Reason::NoNumber, 0),
        ("79169999999", Reason::UnknownCaller, 1),
    ] {
        let call = IncomingCall {
            phone: phone.to_owned(),
            ..IncomingCall::default()
        };
        let now = serve::clock()();
        let decision = router.route(&call, now, Purpose::Call).await;
        assert_eq!(decision.reason, reason, "{phone}");
        assert_eq!(watched.asked.load(Ordering::Relaxed), asked, "{phone}");
    }
}
