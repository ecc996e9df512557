//! The limit of what a machine can do: hyper and tokio's spawn_blocking, as their documentation shows them.
//!
//!     offloop-hyper serve UNITS ROUNDS PORT WORKERS        until a signal arrives
//!     offloop-hyper serve UNITS ROUNDS PORT WORKERS MOST   at most MOST requests in flight, 503 beyond
//!     offloop-hyper measure UNITS ROUNDS                   CPU seconds of the work of one request

use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;

use hyper::service::{make_service_fn, service_fn};
use hyper::{Body, Request, Response, Server, StatusCode};
use tokio::sync::Semaphore;
use tokio::task::{spawn_blocking, JoinHandle};

/// The work of one request: that of the other designs, and more of the same, since Python takes longer for it.
#[derive(Clone, Copy)]
struct Work {
    units: usize,
    rounds: usize,
}

impl Work {
    /// Format `rounds` strings and add up their lengths; the answer tells of the first `units`, as Python's does.
    fn run(self) -> String {
        let mut body = String::new();
        let mut count = 0;
        for n in 0..self.rounds.max(self.units) {
            let value = format!("Value: {}", n);
            count += value.len();
            if n + 1 == self.units {
                body = format!(r#"{{"street": "10 Downing Street", "city": "{}", "count": {}}}"#, value, count);
            }
        }
        // What comes after the answer may not be left out as useless.
        unsafe { std::ptr::read_volatile(&count) };
        body
    }

    /// CPU seconds of it on this thread, once it has run before.
    fn cpu_seconds(self) -> f64 {
        self.run();
        let before = thread_seconds();
        self.run();
        thread_seconds() - before
    }
}

/// The clock of Python's `time.thread_time`.
fn thread_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// A task that does not start any more once nobody waits for it: what a cancelled future is to an executor.
struct Awaited(JoinHandle<String>);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn unbounded(work: Work) -> Response<Body> {
    json(spawn_blocking(move || work.run()).await.expect("the work does not panic"))
}

/// The place is free again when the answer is made, or when hyper drops this future: its client has left.
async fn bounded(work: Work, places: &Semaphore) -> Response<Body> {
    let _place = match places.try_acquire() {
        Ok(place) => place,
        Err(_) => return refusal(),
    };
    let mut task = Awaited(spawn_blocking(move || work.run()));
    json((&mut task.0).await.expect("the work does not panic"))
}

fn json(body: String) -> Response<Body> {
    let response = Response::builder().header("Content-Type", "application/json");
    response.body(Body::from(body)).expect("a valid header")
}

fn refusal() -> Response<Body> {
    let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
    response.header("Retry-After", "1").body(Body::empty()).expect("a valid header")
}

async fn answer(request: Request<Body>, work: Work, places: Option<Arc<Semaphore>>) -> Result<Response<Body>, Infallible> {
    Ok(match (request.uri().path(), places) {
        ("/data", Some(places)) => bounded(work, &places).await,
        ("/data", None) => unbounded(work).await,
        _ => Response::new(Body::from("ok\n")),
    })
}

fn serve(work: Work, port: u16, workers: usize, most: Option<usize>) -> Result<(), Box<dyn Error>> {
    let places = most.map(|most| Arc::new(Semaphore::new(most)));
    // One more thread for each core turns the event loop: tokio's default.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(workers).build()?;
    runtime.block_on(async {
        let service = make_service_fn(|_| {
            let places = places.clone();
            let one = service_fn(move |request| answer(request, work, places.clone()));
            async { Ok::<_, Infallible>(one) }
        });
        Ok(Server::try_bind(&([127, 0, 0, 1], port).into())?.serve(service).await?)
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let numbers = words.iter().skip(1).map(|word| word.parse()).collect::<Result<Vec<usize>, _>>()?;
    match (words.first().map(String::as_str), numbers.as_slice()) {
        (Some("measure"), &[units, rounds]) => println!("{}", Work { units, rounds }.cpu_seconds()),
        (Some("serve"), &[units, rounds, port, workers, ref most @ ..]) if most.len() <= 1 => {
            serve(Work { units, rounds }, u16::try_from(port)?, workers, most.first().copied())?;
        }
        _ => return Err("serve UNITS ROUNDS PORT WORKERS [MOST], or measure UNITS ROUNDS".into()),
    }
    Ok(())
}
