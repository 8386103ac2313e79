//! A headless Chromium, driven through its pipe of the DevTools protocol: messages of JSON, each
//! ended by a zero byte (`--remote-debugging-pipe`).
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _, pipe};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt as _, FdMapping};
use serde_json::{Value, json};

/// Longer than a page needs on a machine that does twenty other things; reached only when what is
/// waited for does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one tab. Dropping it ends it.
pub struct Browser {
    child: Child,
    to: PipeWriter,
    from: BufReader<PipeReader>,
    session: String,
    last_id: u64,
    /// What went wrong in the page, by the browser's words.
    pub errors: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts it.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().expect("a directory");
        let (theirs_in, to) = pipe().expect("a pipe");
        let (from, theirs_out) = pipe().expect("a pipe");
        let mut command = Command::new("chromium");
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
                "about:blank",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mappings = [(theirs_in.into(), 3), (theirs_out.into(), 4)]
            .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        command.fd_mappings(mappings.into()).expect("two numbers");
        let child = command.spawn().expect("chromium; `tests/install-peers` brings it");
        // The command holds their ends, which would hide the browser's end.
        drop(command);
        let (from, session, errors) = (BufReader::new(from), String::new(), Vec::new());
        let mut browser = Self { child, to, from, session, last_id: 0, errors, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// The size of the window in CSS pixels, and the scheme that the reader asks for.
    pub fn look_like(&mut self, width: u32, height: u32, scheme: &str) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", scheme);
    }

    /// Waits until the page has the looks of [`Browser::look_like`] and has drawn itself with them:
    /// the browser answers before that.
    pub fn wait_for_looks(&mut self, width: u32, scheme: &str) {
        let looks = format!(
            "innerWidth === {width} && matchMedia('(prefers-color-scheme: {scheme})').matches"
        );
        self.wait_until(&looks);
        // What watches sizes hears of them behind the first frame's layout.
        let frames =
            "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))";
        self.evaluate(json!({ "expression": frames, "awaitPromise": true }));
    }

    /// Goes to a page.
    pub fn open(&mut self, address: &str) {
        let answer = self.call("Page.navigate", json!({ "url": address }));
        assert!(answer["errorText"].is_null(), "{answer}");
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        self.evaluate(json!({ "expression": expression, "returnByValue": true }))
    }

    /// Waits until an expression in the page is true; fails the test when it does not come to be.
    pub fn wait_until(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(expression) != true {
            assert!(Instant::now() < deadline, "in vain: {expression}; {:?}", self.errors);
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn evaluate(&mut self, arguments: Value) -> Value {
        let answer = self.call("Runtime.evaluate", arguments.clone());
        assert!(answer["exceptionDetails"].is_null(), "{arguments}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Presses a key, by its name.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let code = if key == "Tab" { 9 } else { 0 };
            let event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// The whole page as PNG, in base64.
    pub fn screenshot(&mut self) -> String {
        let arguments = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.call("Page.captureScreenshot", arguments);
        answer["data"].as_str().expect("an image").to_owned()
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to.write_all(&text).expect("the browser reads");
        loop {
            let mut text = Vec::new();
            self.from.read_until(0, &mut text).expect("the browser speaks");
            assert_eq!(text.pop(), Some(0), "the browser ended");
            let message: Value = serde_json::from_slice(&text).expect("JSON");
            if message["id"] == self.last_id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.hear(&message);
        }
    }

    /// Keeps what is an error of the page.
    fn hear(&mut self, message: &Value) {
        let parameters = &message["params"];
        let is_error =
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Log.entryAdded") => ["error", "warning"]
                    .contains(&parameters["entry"]["level"].as_str().unwrap_or("")),
                Some("Runtime.consoleAPICalled") => ["error", "warning", "assert"]
                    .contains(&parameters["type"].as_str().unwrap_or("")),
                _ => false,
            };
        if is_error {
            self.errors.push(parameters.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
