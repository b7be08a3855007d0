//! A publisher in a process of its own, for tests that talk to it from outside. It is told what to do line by
//! line and answers each line with one: `ok` and a number, or what is wrong.
//!
//! `open URI KEY=VALUE…`, `wait COUNT`, `frames FIRST COUNT SIZE`, `sticky NAME VALUE`, `event NAME DATA`, `trim`, `subscribers`, `dropped`, `buffers`, `close`.

use std::io::BufRead;
use std::time::Duration;

use pagecast::{Policy, Pool, PoolOptions, Publisher, PublisherOptions};
use pagecast_tests::stamped;

const PATIENCE: Duration = Duration::from_secs(30);

type Outcome = Result<u64, Box<dyn std::error::Error>>;

fn main() {
    let mut open = None;
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split_whitespace().collect();
        match obey(&mut open, &words) {
            Ok(number) => println!("ok {number}"),
            Err(error) => println!("error {error}"),
        }
    }
}

fn obey(open: &mut Option<(Publisher, Pool)>, words: &[&str]) -> Outcome {
    if let ["open", uri, settings @ ..] = words {
        let pool = Pool::new(PoolOptions::default());
        let publisher = Publisher::open(uri, options(settings)?)?;
        publisher.set_pool(&pool);
        *open = Some((publisher, pool));
        return Ok(u64::from(std::process::id()));
    }
    if words == ["close"] {
        if let Some((publisher, _)) = open.take() {
            publisher.close(Duration::ZERO);
        }
        return Ok(0);
    }
    let (publisher, pool) = open.as_ref().ok_or("not open")?;
    match words {
        ["wait", count] => {
            let came = publisher.wait_for_subscribers(count.parse()?, Some(PATIENCE));
            if came { Ok(0) } else { Err("nobody came".into()) }
        }
        ["frames", first, count, size] => {
            let (first, count): (u64, u64) = (first.parse()?, count.parse()?);
            let size = size.parse()?;
            for number in first..first + count {
                publisher.publish(&stamped(pool, number, size))?;
            }
            Ok(count)
        }
        ["sticky", name, value] => Ok(publisher.set_sticky(name, value.as_bytes()).map(|()| 0)?),
        ["event", name, data] => Ok(publisher.publish_event(name, data.as_bytes()).map(|()| 0)?),
        ["trim"] => {
            pool.trim();
            Ok(pool.figures().buffers as u64)
        }
        ["buffers"] => Ok(pool.figures().buffers as u64),
        ["subscribers"] => Ok(publisher.subscribers() as u64),
        ["dropped"] => Ok(publisher.info().publisher.dropped),
        other => Err(format!("unknown: {other:?}").into()),
    }
}

fn options(settings: &[&str]) -> Result<PublisherOptions, Box<dyn std::error::Error>> {
    // Policy `block` loses nothing, however slow the machine is.
    let mut options =
        PublisherOptions { name: "tested".to_owned(), block_deadline: None, ..PublisherOptions::default() };
    for setting in settings {
        let (key, value) = setting.split_once('=').ok_or("KEY=VALUE")?;
        match key {
            "policy" => options.policy = value.parse::<Policy>()?,
            "credits" => options.credits = Some(value.parse()?),
            "mailbox" => options.mailbox = Some(value.parse()?),
            "max-subscribers" => options.max_subscribers = value.parse()?,
            "hold-timeout-ms" => options.hold_timeout = Some(Duration::from_millis(value.parse()?)),
            "perms" => options.perms = u32::from_str_radix(value, 8)?,
            "limit" => options.limit = value.parse()?,
            other => return Err(format!("unknown setting {other}").into()),
        }
    }
    Ok(options)
}
