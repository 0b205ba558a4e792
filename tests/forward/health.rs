//! Upstreams going down and coming back.

use super::*;

/// Probes every 20 ms.
fn probed(to: SocketAddr) -> Config {
    let mut config = Config::new(Name::root(), vec![Target::plain(to)]);
    config.health_check.interval = Duration::from_millis(20);
    config
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn three_failed_probes_take_an_upstream_down_and_a_good_one_brings_it_back() {
    for transport in [Transport::PreferUdp, Transport::ForceTcp] {
        run(async {
            let port = closed_port();
            let client = Client::new(&[Config { transport, failfast_all_unhealthy: true, ..probed(port) }]);
            let failed = &client.counts.probes_failed;
            assert_ne!(client.udp("a").await, Err(ForwardError::AllDown));
            until("three failed probes", || failed.get() >= 3).await;
            assert_eq!(client.udp("a").await, Err(ForwardError::AllDown));
            assert!(client.counts.all_down.get() >= 1);

            let server = Upstream::start_at(port, answer).await;
            until("a probe", || server.probes() > 0).await;
            until("recovery", || client.counts.probes_failed.get() > 0).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_answered(client.udp("a").await);
            assert_eq!(server.probes(), 1, "one success is enough");
        });
    }
}

#[test]
fn when_all_are_down_one_is_asked_anyway() {
    run(async {
        // Probes fail, queries do not.
        let silent_to_probes = |asked: &Asked| match asked.name.as_str() {
            "." => vec![],
            "drop." => vec![Step::Reset],
            _ => answer(asked),
        };
        let server = Upstream::start(silent_to_probes).await;
        let client =
            Client::new(&[Config { max_fails: 1, transport: Transport::ForceTcp, ..probed(server.address) }]);
        client.tcp("drop").await.unwrap_err();
        until("two failed probes", || client.counts.probes_failed.get() >= 2).await;
        assert_eq!(client.counts.all_down.get(), 0);
        assert_answered(client.tcp("a").await);
        assert_eq!(client.counts.all_down.get(), 1);
    });
}

#[test]
fn max_fails_0_means_no_probes() {
    run(async {
        let server = Upstream::start(|_| vec![Step::Reset]).await;
        let client = Client::new(&[Config {
            max_fails: 0,
            failfast_all_unhealthy: true,
            transport: Transport::ForceTcp,
            ..probed(server.address)
        }]);
        for _ in 0..5 {
            assert_ne!(client.tcp("a").await, Err(ForwardError::AllDown));
        }
        assert_eq!((server.probes(), server.asked().len()), (0, 10));
    });
}

#[test]
fn probes_ask_what_the_directive_says() {
    run(async {
        let server = Upstream::start(|asked| match asked.name.as_str() {
            "up.example." => vec![Step::Send(asked.reply(5))],
            _ => vec![Step::Reset],
        })
        .await;
        let mut config = probed(server.address);
        config.transport = Transport::ForceTcp;
        config.health_check.domain = Name::from_text("up.example").unwrap();
        config.health_check.recursion_desired = false;
        let client = Client::new(&[config]);
        client.tcp("a").await.unwrap_err();
        let is_probe = |asked: &Asked| asked.name == "up.example.";
        until("a probe", || server.asked().iter().any(is_probe)).await;
        let asked = server.asked();
        let probe = asked.iter().find(|asked| is_probe(asked)).unwrap();
        assert_eq!(probe.message[2..6], [0, 0, 0, 1]);
        assert!(probe.message.ends_with(&[0, 0, 2, 0, 1]));
    });
}
