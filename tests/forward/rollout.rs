//! One address with several servers behind it.

use super::*;

/// Asks some two thousand a second.
async fn load(client: &Client, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        join_all((0..10).map(|_| client.tcp("a"))).await.into_iter().for_each(assert_answered);
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

/// What is bounded here is chance: in these seconds some hundred connections are dealt to four. That
/// shares come within a fifth of even in a minute is shown by the pool's own test, on a paused clock.
#[test]
fn servers_that_join_get_their_share() {
    run(async {
        let first = Upstream::start_beside(None, answer).await;
        let second = Upstream::start_beside(Some(first.address), answer).await;
        let client = Client::new(&[force_tcp(&[&first])]);
        load(&client, Duration::from_secs(1)).await;
        let third = Upstream::start_beside(Some(first.address), answer).await;
        let fourth = Upstream::start_beside(Some(first.address), answer).await;
        let servers = [&first, &second, &third, &fourth];
        let before = servers.map(|server| server.asked().len());
        load(&client, Duration::from_secs(8)).await;
        let after = servers.map(|server| server.asked().len());
        let shares: Vec<usize> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let even = shares.iter().sum::<usize>() / 4;
        assert!(shares.iter().all(|share| (even / 3..=even * 2).contains(share)), "{shares:?}");
        assert_eq!((client.counts.retried.get(), client.counts.hedged.get()), (0, 0));
    });
}
