//! Cases played side by side, by several crews: a case mostly waits, 3 s for a lost wake to come back and 1 s for the
//! silence of its holder.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use nightcrew_tests::rig::{Nats, Rig};

/// Plays `case` with each point and its number from one, by as many at once as there are crews. Fails with all that failed.
pub(crate) async fn play<B: Nats>(
    crews: &[Rig<B>],
    points: &[String],
    case: impl AsyncFn(&Rig<B>, usize, &str) -> anyhow::Result<()>,
) {
    let next = AtomicUsize::new(0);
    let lane = async |crew: &Rig<B>| {
        let mut failures = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(point) = points.get(n) else { return failures };
            if let Err(error) = case(crew, n + 1, point).await {
                failures.push(format!("{point}: {error:#}"));
            }
        }
    };
    let failures: Vec<String> = join_all(crews.iter().map(lane)).await.concat();
    assert!(failures.is_empty(), "{} of {} cases failed:\n{}", failures.len(), points.len(), failures.join("\n"));
}
