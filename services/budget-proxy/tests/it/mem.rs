//! Temp.
use crate::stage::*;

fn rss() -> u64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines().find(|l| l.starts_with("VmRSS")).unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mem() {
    let port = std::env::var("PORT").unwrap();
    let routes = format!(
        "  far: {{provider: anthropic, base_url: 'http://127.0.0.1:{port}', model: upstream-model, context_window: 1000, max_output_tokens: 500, unpriced: true}}\n"
    );
    let setting = Setting { routes, ..Setting::default() };
    let stage = Stage::with("\n  - name: a\n    reply: {text: a}\n", setting).await;
    let mut runs = Vec::new();
    for _ in 0..20 {
        runs.push(stage.caller().await);
    }
    let mut text = stage.proxy.url.clone();
    for (_, c) in &runs {
        text.push('\n');
        text.push_str(&c.bearer);
    }
    println!("before {}", rss());
    std::fs::write("/tmp/bp/go.tmp", text).unwrap();
    std::fs::rename("/tmp/bp/go.tmp", "/tmp/bp/go").unwrap();
    for _ in 0..2400 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        if let Ok(t) = std::fs::read_to_string("/tmp/bp/mark") {
            println!("{t} {}", rss());
            std::fs::remove_file("/tmp/bp/mark").unwrap();
            if t.contains("last") {
                break;
            }
        }
    }
}
