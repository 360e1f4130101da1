//! The operators' page in a real browser: Debian's Chromium, both languages, judged by axe too.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use pryamo::directory::Findings;
use pryamo::serve;
use serde_json::{Value, json};

use crate::daemon::{Daemon, Site, wait_for};
use crate::page::set_password;

const DRIVER: &str = "/usr/bin/chromedriver";
const AXE: &str = include_str!("../browser/axe.min.js");
const PASSWORD: &str = "correct horse";
const CLIENTS: &str = "\
id;kind;name;company;phone;responsible;extension
1;contact;Иван Петров;ООО «Ромашка»;79161234501;Анна Соколова;101
2;contact;Мария Весна;;79161234502;Виктор Новенький;
3;contact;Пётр Зимин;;79161234503;Анна Соколова;101
4;contact;Пётр Зимин младший;;79161234503;Борис Жуков;102
";
/// Every page; a path with a question shows its answer.
const PAGES: [(&str, &str); 7] = [
    ("now", "/"),
    ("who", "/who?phone=89161234502"),
    ("employees", "/employees?q="),
    ("journal", "/journal"),
    ("hygiene", "/hygiene"),
    ("mirrors", "/mirrors"),
    ("setup", "/setup"),
];

/// Chromedriver and a browser behind it; both end with it.
struct Browser {
    client: Client,
    driver: Child,
    // The browser's profile.
    _folder: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to end, the driver ends its browser too.
        let pid = self.driver.id().to_string();
        let _ = Command::new("kill").arg(&pid).status();
        let _ = self.driver.wait();
    }
}

impl Browser {
    async fn open(language: &str, width: u32, height: u32, dark: bool) -> Self {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let driver = Command::new(DRIVER)
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{DRIVER}: {error}; run tests/install test"));
        let folder = tempfile::tempdir().unwrap();
        let mut arguments: Vec<String> = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.push(format!("--user-data-dir={}", folder.path().display()));
        arguments.push(format!("--window-size={width},{height}"));
        arguments.push(format!("--lang={language}"));
        arguments.push(format!("--accept-lang={language}"));
        if dark {
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        let mut options = json!({
            "args": arguments,
            "prefs": {"intl.accept_languages": language},
        });
        // No window is as narrow as a telephone.
        if width < 500 {
            options["mobileEmulation"] = json!({
                "deviceMetrics": {"width": width, "height": height, "pixelRatio": 2.0},
            });
        }
        let capabilities = json!({
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let Value::Object(capabilities) = capabilities else {
            unreachable!()
        };
        let address = format!("http://127.0.0.1:{port}");
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        let mut tries = 0;
        let client = loop {
            match builder.connect(&address).await {
                Ok(client) => break client,
                Err(error) if tries > 200 => panic!("chromedriver: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            tries += 1;
        };
        Self {
            client,
            driver,
            _folder: folder,
        }
    }

    async fn go(&self, address: &str) {
        self.client.goto(address).await.unwrap();
    }

    async fn text(&self) -> String {
        let script = "return document.body.innerText";
        let text = self.client.execute(script, Vec::new()).await.unwrap();
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the page shows this.
    async fn shows(&self, wanted: &str) -> String {
        for _ in 0..300 {
            let text = self.text().await;
            if text.contains(wanted) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("waited in vain for `{wanted}`: {}", self.text().await)
    }

    /// Waits until the page has nothing like this any more.
    async fn gone(&self, css: &str) {
        for _ in 0..300 {
            if self
                .client
                .find_all(Locator::Css(css))
                .await
                .unwrap()
                .is_empty()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{css} is still there: {}", self.text().await)
    }

    async fn fill(&self, name: &str, value: &str) {
        let css = format!("[name={name}]");
        let field = self.client.find(Locator::Css(&css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(value).await.unwrap();
    }

    async fn click(&self, css: &str) {
        let found = self.client.find(Locator::Css(css)).await.unwrap();
        found.click().await.unwrap();
    }

    /// What axe finds that is serious or worse.
    async fn faults(&self) -> Vec<String> {
        self.client.execute(AXE, Vec::new()).await.unwrap();
        let script = "return axe.run(document, {resultTypes: ['violations']}).then(found =>
            found.violations.filter(one => ['serious', 'critical'].includes(one.impact))
                .map(one => one.id + ': ' + one.nodes.map(node => node.html).join(' | ')))";
        let found = self.client.execute(script, Vec::new()).await.unwrap();
        serde_json::from_value(found).unwrap()
    }

    /// What the browser complains about, breaches of the page's policy among it.
    async fn complaints(&self) -> Vec<String> {
        let log = self.client.issue_cmd(BrowserLog).await.unwrap();
        let entries = log.as_array().cloned().unwrap_or_default();
        let told = entries.iter().map(|entry| entry["message"].to_string());
        // The refusal of a wrong password is no fault.
        told.filter(|text| !text.contains("status of 401"))
            .collect()
    }

    async fn sign_in(&self, base: &str) {
        self.go(&format!("{base}/sign-in")).await;
        self.fill("name", "anna").await;
        self.fill("password", PASSWORD).await;
        self.click(".door button").await;
        // Whoever goes on before the answer goes on as a stranger.
        self.gone(".door").await;
    }

    async fn screenshot(&self, name: &str) {
        if std::env::var_os("PRYAMO_TEST_SCREENSHOTS").is_none() {
            return;
        }
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let image = self.client.screenshot().await.unwrap();
        std::fs::write(folder.join(format!("{name}.png")), image).unwrap();
    }
}

/// Chromedriver's own command: the browser's console.
#[derive(Debug)]
struct BrowserLog;

impl WebDriverCompatibleCommand for BrowserLog {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (
            http::Method::POST,
            Some(json!({"type": "browser"}).to_string()),
        )
    }
}

fn set_up() -> (Site, Daemon, String) {
    let site = Site::with_csv(CLIENTS);
    remember_surveys(&site);
    let daemon = Daemon::start(&site);
    set_password(&site, "anna", "");
    let base = format!("http://{}", daemon.address);
    (site, daemon, base)
}

/// What was to be mended in the weeks before, as daemons of those days have kept it.
fn remember_surveys(site: &Site) {
    drop(Daemon::start(site));
    let today = Findings::day_of(serve::clock()());
    let file = rusqlite::Connection::open(site.path("data/directory.sqlite")).unwrap();
    for (ago, shared, gone, without_extension) in [(28, 9, 0, 4), (20, 6, 0, 4), (9, 3, 2, 2)] {
        let day = [today - ago, shared, gone, 0, without_extension];
        file.execute("INSERT INTO findings VALUES (?1, ?2, ?3, ?4, ?5)", day)
            .unwrap();
    }
}

/// Some calls of a morning, as a dialplan tells of them.
fn call(daemon: &Daemon) {
    for (id, phone, rung) in [
        ("1.1", "79161234501", "101"),
        ("1.2", "79161234503", "101"),
        ("1.3", "79169999999", ""),
        ("1.4", "79161234502", ""),
    ] {
        daemon.forward(&format!("phone={phone}&trunk=74951234567&callid={id}"));
        if !rung.is_empty() {
            daemon.get(&format!(
                "/ended?callid={id}&number={rung}&status=ANSWER&rang=4&talked=60"
            ));
        }
    }
}

#[tokio::test]
async fn an_operator_works_with_the_page() {
    let (_site, daemon, base) = set_up();
    let browser = Browser::open("ru", 1280, 900, false).await;
    browser.go(&format!("{base}/employees")).await;
    browser.shows("Вход").await;
    browser.fill("name", "anna").await;
    browser.fill("password", "wrong horse").await;
    browser.click(".door button").await;
    browser.shows("Неверное имя или пароль").await;
    browser.fill("password", PASSWORD).await;
    browser.click(".door button").await;
    browser.shows("Виктор Новенький").await;
    // A call appears by itself.
    browser.go(&base).await;
    browser.shows("Звонков ещё не было").await;
    call(&daemon);
    let now = browser.shows("+79161234501").await;
    assert!(
        now.contains("ответил свой сотрудник") || now.contains("Анна Соколова"),
        "{now}"
    );
    // What somebody has opened stays open when the next call comes.
    browser.shows("обычный маршрут").await;
    browser.click("#now tbody tr:last-child summary").await;
    daemon.forward("phone=79163332211&trunk=74951234567&callid=1.5");
    browser.shows("+79163332211").await;
    let open = Locator::Css("#now tbody tr:last-child details[open]");
    browser.client.find(open).await.unwrap();
    // Who gets this number?
    browser.go(&format!("{base}/who")).await;
    browser.fill("phone", "8 (916) 123-45-02").await;
    browser.click("form.line button").await;
    let who = browser.shows("Обычный маршрут").await;
    assert!(
        who.contains("нет добавочного") || who.contains("Нет добавочного"),
        "{who}"
    );
    // From the advice to the employee, and the next call rings.
    browser.click(".columns .plain a").await;
    browser.shows("Чего не знает CRM").await;
    browser.fill("extension", "105").await;
    browser.click("form[action='/employees/set'] button").await;
    browser.shows("Сохранено").await;
    assert_eq!(daemon.rings("phone=79161234502").as_deref(), Some("105"));
    // The same in the other language, and the journal.
    browser.click(".who a[hreflang=en]").await;
    browser.shows("Employees").await;
    browser.go(&format!("{base}/journal")).await;
    browser.shows("own person").await;
    browser.click("details summary").await;
    browser.shows("the caller's number").await;
    // Set-up: what `check` finds, and a CRM that does not answer.
    browser.click(".who a[hreflang=ru]").await;
    browser.go(&format!("{base}/setup")).await;
    browser.click("#check").await;
    browser.shows("clients.csv: 4 cards").await;
    assert_eq!(browser.faults().await, [] as [String; 0]);
    browser.screenshot("setup-checked-ru-desktop-light").await;
    browser.click("details:nth-of-type(3) summary").await;
    browser.fill("file", "/nowhere/clients.csv").await;
    browser.click("#connect-csv").await;
    browser.shows("ничего не записано").await;
    assert_eq!(browser.faults().await, [] as [String; 0]);
    browser.screenshot("setup-refused-ru-desktop-light").await;
    assert_eq!(browser.complaints().await, [] as [String; 0]);
    browser.client.clone().close().await.unwrap();
}

#[tokio::test]
async fn every_page_is_fit_for_everybody() {
    let (_site, daemon, base) = set_up();
    call(&daemon);
    wait_for("the calls in the journal", || {
        let body = daemon.get("/metrics").body;
        body.contains("pryamo_known_callers_total").then_some(())
    });
    let mut faults: Vec<String> = Vec::new();
    for (language, width, dark) in [
        ("ru", 1280, false),
        ("en", 1280, true),
        ("ru", 390, true),
        ("en", 390, false),
    ] {
        let browser = Browser::open(language, width, 900, dark).await;
        browser.go(&format!("{base}/sign-in")).await;
        let found = browser.faults().await;
        faults.extend(
            found
                .iter()
                .map(|fault| format!("sign-in {language}: {fault}")),
        );
        browser.sign_in(&base).await;
        for (name, path) in PAGES {
            browser.go(&format!("{base}{path}")).await;
            if name == "hygiene" {
                let ago = if language == "ru" {
                    "28 дней назад"
                } else {
                    "28 days ago"
                };
                browser.shows(ago).await;
                // All has been counted: nothing is changed under the reader's eyes.
                browser.gone("#counted [role=status]").await;
            }
            let is = format!("{name} {language} {width} {dark}");
            let found = browser.faults().await;
            faults.extend(found.iter().map(|fault| format!("{is}: {fault}")));
            // Nothing is wider than the screen: only a table may be moved sideways, inside its frame.
            let wide = "return document.documentElement.scrollWidth - window.innerWidth";
            let wider = browser.client.execute(wide, Vec::new()).await.unwrap();
            if wider.as_i64().unwrap() > 0 {
                faults.push(format!("{is}: {wider} px wider than the screen"));
            }
            let shade = if dark { "dark" } else { "light" };
            let place = if width > 1000 { "desktop" } else { "phone" };
            browser
                .screenshot(&format!("{name}-{language}-{place}-{shade}"))
                .await;
        }
        faults.extend(browser.complaints().await);
        browser.client.clone().close().await.unwrap();
    }
    assert_eq!(faults, [] as [String; 0]);
}
