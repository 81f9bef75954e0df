// A job's curves in bounded memory: buckets of batches, of which each replaces what an earlier run of it has said.

const QUANTITIES = ["loss", "accuracy", "learning_rate", "grad_norm"];

/** The curves of one job; at most twice `points` of them, however many batches there are. */
export class Curves {
  constructor(points = 600) {
    this.points = points;
    this.span = 1; // how many batches a bucket is to hold
    this.buckets = []; // of the newest run, up to the last batch heard of
    this.stale = []; // of an earlier run, behind that batch: superseded bit by bit
  }

  /** Take over the buckets of `GET /jobs/{id}/metrics`. */
  load(curves) {
    const sizes = curves.batch.map((batch, index) => batch - (index ? curves.batch[index - 1] : 0));
    this.span = Math.max(1, ...sizes.slice(0, -1));
    curves.batch.forEach((batch, index) => {
      const values = Object.fromEntries(QUANTITIES.map((name) => [name, curves[name][index]]));
      const low = curves.loss_min[index];
      const high = curves.loss_max[index];
      this.#append({ batch, step: curves.step[index], weight: sizes[index], values, low, high });
    });
  }

  /** Add one `batch` event's data. */
  add(data) {
    if (this.buckets.length && data.batch <= this.buckets[this.buckets.length - 1].end) this.#rerunFrom(data.batch);
    while (this.stale.length && this.stale[0].end <= data.batch) this.stale.shift();
    const values = Object.fromEntries(QUANTITIES.map((name) => [name, data[name] ?? null]));
    this.#append({ batch: data.batch, step: data.step, weight: 1, values, low: data.loss, high: data.loss });
  }

  /** Return arrays to plot: step, and for each quantity its means, with `low` and `high` of the loss. */
  columns() {
    const all = [...this.buckets, ...this.stale];
    const means = QUANTITIES.map((name) => [name, all.map((bucket) => mean(bucket.sums[name]))]);
    return {
      step: all.map((bucket) => bucket.step),
      low: all.map((bucket) => bucket.low),
      high: all.map((bucket) => bucket.high),
      ...Object.fromEntries(means),
    };
  }

  /** The batches from here on are run again: what is known of them stands until the new run has passed it. */
  #rerunFrom(batch) {
    const first = this.buckets.findIndex((bucket) => bucket.end >= batch);
    const again = this.buckets.splice(first);
    // A bucket that began before stays as what it was up to here.
    if (again[0].start < batch) this.buckets.push({ ...again.shift(), end: batch - 1 });
    this.stale = [...again, ...this.stale.filter((bucket) => bucket.end > (again.at(-1)?.end ?? 0))];
  }

  #append(point) {
    const last = this.buckets[this.buckets.length - 1];
    const start = last ? last.end + 1 : 1;
    // The batches of one update share its step: one point of the plot.
    if (last && (last.step === point.step || point.batch - last.start < this.span)) {
      merge(last, bucketOf(point, start));
    } else {
      this.buckets.push(bucketOf(point, start));
    }
    if (this.buckets.length > 2 * this.points) this.#halve();
  }

  #halve() {
    const halved = [];
    for (const [index, bucket] of this.buckets.entries()) {
      if (index % 2) merge(halved[halved.length - 1], bucket);
      else halved.push(bucket);
    }
    this.buckets = halved;
    this.span *= 2;
  }
}

function bucketOf({ batch, step, weight, values, low, high }, start) {
  const sums = Object.fromEntries(
    // A number that was not finite comes as null, and counts for nothing.
    QUANTITIES.map((name) => [name, values[name] === null ? [0, 0] : [values[name] * weight, weight]]),
  );
  return { start, end: batch, step, sums, low, high };
}

function merge(into, other) {
  into.end = other.end;
  into.step = other.step;
  into.low = extreme(Math.min, into.low, other.low);
  into.high = extreme(Math.max, into.high, other.high);
  for (const name of QUANTITIES) {
    const [sum, weight] = other.sums[name];
    into.sums[name] = [into.sums[name][0] + sum, into.sums[name][1] + weight];
  }
}

function extreme(choose, one, other) {
  return one === null ? other : other === null ? one : choose(one, other);
}

function mean([sum, weight]) {
  return weight ? sum / weight : null;
}
