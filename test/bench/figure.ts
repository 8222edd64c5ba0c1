/**
 * What the benchmark reports: figures, their medians over several short rounds, and ratios to references.
 *
 * A ratio is taken within each round, between values that were measured one right after the other, and the median of
 * the rounds is reported: on a machine with neighbours both sides of a ratio suffer alike.
 */

export interface Figure {
  readonly name: string
  /** 1: all processes on one CPU; 2: each pager on its own, the application with its home pager. */
  readonly cpus: 1 | 2
  readonly p50: number
  readonly p99: number
  readonly unit: string
  /** Name of the figure (or the sum of figures) the ratio divides by; null for references. */
  readonly reference: string | null
  readonly ratio: number | null
  readonly note: string
}

/** What one round gives for one name. */
export interface Sample {
  readonly p50: number
  readonly p99: number
  readonly unit: string
}

/** The value below which `share` of the sorted values lie. Throws RangeError when there are none. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  const value = sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]
  if (value === undefined) throw new RangeError('no samples')
  return value
}

export function median(values: readonly number[]): number {
  return percentile(values, 0.5)
}

/** A sample of durations; `more` is better for rates, whose p99 is the low end. */
export function sampleOf(values: readonly number[], unit: string, better: 'less' | 'more' = 'less'): Sample {
  return {
    p50: median(values),
    p99: percentile(values, better === 'less' ? 0.99 : 0.01),
    unit,
  }
}

/** The rounds of one configuration: samples by name, one list entry a round. */
export class Rounds {
  readonly #samples = new Map<string, Sample[]>()

  constructor(readonly cpus: 1 | 2) {}

  add(name: string, sample: Sample): void {
    const list = this.#samples.get(name) ?? []
    list.push(sample)
    this.#samples.set(name, list)
  }

  has(name: string): boolean {
    return this.#samples.has(name)
  }

  /** A figure that is a reference itself. Throws RangeError if nothing was measured under that name. */
  reference(name: string, note: string): Figure {
    return { ...this.#medians(name), reference: null, ratio: null, note }
  }

  /**
   * A figure divided, round by round, by what `divide` makes of the references of the same round; `value`: the medians
   * of both or their tails. `reference` says in words what that is.
   */
  figure(
    name: string,
    from: string,
    reference: string,
    note: string,
    divide: (of: (reference: string) => number) => number,
    value: 'p50' | 'p99' = 'p50',
  ): Figure {
    const ratios = (this.#samples.get(from) ?? []).map((sample, round) => {
      const of = (other: string) => this.#samples.get(other)?.[round]?.[value] ?? Number.NaN
      return sample[value] / divide(of)
    })
    return { ...this.#medians(from), name, reference, ratio: rounded(median(ratios)), note }
  }

  #medians(name: string) {
    const samples = this.#samples.get(name) ?? []
    return {
      name,
      cpus: this.cpus,
      p50: rounded(median(samples.map(sample => sample.p50))),
      p99: rounded(median(samples.map(sample => sample.p99))),
      unit: samples[0]?.unit ?? '',
    }
  }
}

/** Three decimals for small numbers, none for large ones. */
export function rounded(value: number): number {
  return Math.abs(value) >= 10_000 ? Math.round(value) : Math.round(value * 1000) / 1000
}
