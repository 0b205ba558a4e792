//! Servers that answer each connection in order, as CoreDNS does, and names that take them long.

use super::*;

/// What a busy machine may add to an answer's time.
const LATE: Duration = Duration::from_millis(100);

/// A server that takes `slow` for names that begin with `slow`, and no time for others.
async fn server(slow: Duration) -> Upstream {
    Upstream::start_in_order(move |asked| {
        let takes = if asked.name.starts_with("slow") { slow } else { Duration::ZERO };
        vec![Step::Wait(takes), Step::Send(asked.answer())]
    })
    .await
}

/// Asks for `count` names that begin with `prefix`, one every `pace`, and gives how long each took, ascending.
async fn load(client: &Client, prefix: &str, count: u32, pace: Duration) -> Vec<Duration> {
    let started = Instant::now();
    let ask = async |number: u32| {
        tokio::time::sleep_until(started + pace * number).await;
        let asked = Instant::now();
        assert_answered(client.tcp(&format!("{prefix}{number}")).await);
        asked.elapsed()
    };
    let mut took = join_all((0..count).map(ask)).await;
    took.sort_unstable();
    took
}

#[test]
fn slow_names_do_not_wait_for_each_other() {
    const SLOW: Duration = Duration::from_millis(700);
    run_alone(async {
        let server = server(SLOW).await;
        let client = Client::new(&[force_tcp(&[&server])]);
        let took = load(&client, "slow", 8, Duration::ZERO).await;
        // Two on each of four connections; three where one of these was late.
        assert!(took[5] < 2 * SLOW + LATE && took[7] < 3 * SLOW + LATE, "{took:?}");
    });
}

/// Names that are asked for at one moment have nothing before them that is late already, but the last ones were.
#[test]
fn a_burst_of_slow_names_is_spread() {
    const SLOW: Duration = Duration::from_millis(200);
    run_alone(async {
        let server = server(SLOW).await;
        let client = Client::new(&[force_tcp(&[&server])]);
        load(&client, "slow.first", 8, Duration::ZERO).await;
        let took = load(&client, "slow.then", 12, Duration::ZERO).await;
        // One more answer's time where two share a connection.
        assert!(took[11] < 2 * SLOW, "{took:?}");
        // Where answers come at once, few connections are enough for the same.
        let quick = self::server(Duration::ZERO).await;
        let client = Client::new(&[force_tcp(&[&quick])]);
        load(&client, "fast.first", 8, Duration::ZERO).await;
        load(&client, "fast.then", 32, Duration::ZERO).await;
        assert!(quick.connections() <= 5, "{} connections", quick.connections());
    });
}

/// Ten slow names a second are more than four connections can carry.
#[test]
fn slow_names_delay_neither_each_other_nor_fast_ones() {
    const SLOW: Duration = Duration::from_millis(1200);
    run_alone(async {
        let server = server(SLOW).await;
        let client = Client::new(&[force_tcp(&[&server])]);
        let (slow, fast) = tokio::join!(
            load(&client, "slow", 60, Duration::from_millis(100)),
            load(&client, "fast", 1200, Duration::from_millis(5)),
        );
        assert!(slow[29] < SLOW + Duration::from_millis(100), "median {:?}", slow[29]);
        assert!(slow[59] < Duration::from_millis(2600), "{slow:?}");
        assert!(fast[1187] < Duration::from_millis(50), "{:?}", &fast[1100..]);
        // Each is renewed after 32 queries, and the slow ones take some two dozen.
        assert!(server.connections() <= 1260 / 32 + 60, "{} connections", server.connections());
    });
}

/// Where answers overtake each other, nothing is gained by more connections.
#[test]
fn a_server_that_answers_out_of_order_is_found_out() {
    run_alone(async {
        let server = Upstream::start(|asked| {
            let takes = if asked.name.starts_with("slow") { 600 } else { 0 };
            vec![Step::Wait(Duration::from_millis(takes)), Step::Send(asked.answer())]
        })
        .await;
        let client = Client::new(&[force_tcp(&[&server])]);
        load(&client, "slow.first", 40, Duration::from_millis(20)).await;
        let before = server.connections();
        let slow = load(&client, "slow.then", 80, Duration::from_millis(20)).await;
        assert!(slow[79] < Duration::from_millis(900), "{slow:?}");
        // Successors of those that wore out.
        assert!(server.connections() <= before + 4, "{before} and then {}", server.connections());
    });
}
