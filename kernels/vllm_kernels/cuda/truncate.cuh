// min-p, top-k and top-p of one line, by one block: each keeps the logits at or above a threshold. No sort.
//
// Usually few tokens stay, and the tiles' largest logits bound the threshold from below: the k-th largest of them has
// at least k logits at or above it, and where their own weights reach top-p's share, so do the weights of all logits from
// there on. The logits above that bound are gathered from the tiles that have any, and compared each with each.
// Where they are too many, passes over the line narrow the threshold down, until few logits lie between its bounds.
#pragma once
#include "candidates.cuh"

namespace {

struct Truncation : Candidates {
    double* mass;   // [tiles], of the tile's weights; with a threshold, of those that stay
    float* sorted;  // [tiles], room
    float heat;     // temperature

    __device__ __forceinline__ Truncation(const Candidates& all, double* mass, float* sorted, float heat)
        : Candidates(all), mass(mass), sorted(sorted), heat(heat) {}

    // The token, or -1 where it is yet to be drawn from ``mass``. ``least``: what stays is at or above it;
    // ``total``: the weight of what stays.
    __device__ int draw(int k, float p, float min_share, double noise, float& least, double& total) {
        // -inf never stays.
        const float floor = fmaxf(min_share > 0 ? top + heat * logf(min_share) : LOWEST, LOWEST);
        double all, own = 0;
        for (int i = threadIdx.x; i < tiles; i += THREADS) own += mass[i];
        all = block_reduce<Sum>(own, 0., shared.scratch);
        const bool share_of_all = !k && !(min_share > 0);
        float from = floor;
        if (k || share_of_all) sort();
        if (k && k <= tiles) from = fmaxf(from, sorted[k - 1]);
        if (share_of_all) from = fmaxf(from, reaching(p * all));
        if (!k || k <= tiles) {
            gather(from, INFINITE);
            if (shared.listed <= LIST) return from_list(k, p, share_of_all ? all : -1, noise, from, least, total);
        }

        least = k ? search(false, k, k <= tiles ? from : floor, -1) : floor;
        total = share_of_all ? all : sum_up(least);
        if (p < 1) {
            // Tokens of less weight than this cannot hold the share that top-p leaves out, all of them together.
            const float least_share = float((1 - p) * total / line.size);
            const float lower = least_share > 0 ? top + heat * (logf(least_share) - 0.01f) : LOWEST;
            least = search(true, p * total, fmaxf(least, lower), total);
            total = sum_up(least);
        }
        return -1;
    }

private:
    // sorted: the tiles' largest logits in falling order.
    __device__ void sort() {
        for (int i = threadIdx.x; i < tiles; i += THREADS) {
            const float mine = largest[i];
            int rank = 0;
#pragma unroll 8
            for (int j = 0; j < tiles; ++j) rank += largest[j] > mine || (largest[j] == mine && j < i);
            sorted[rank] = mine;
        }
        __syncthreads();
    }

    // A logit such that the weights from it on sum to ``target`` or more, if the tiles' largest alone show one.
    __device__ float reaching(double target) {
        const int chunk = (tiles + THREADS - 1) / THREADS, first = threadIdx.x * chunk, end = min(first + chunk, tiles);
        double own = 0, ignored;
        for (int i = first; i < end; ++i) own += weight(sorted[i]);
        const double sum = block_scan(own, ignored, shared.scratch);
        const int mine = first < end && sum >= target ? int(threadIdx.x) : NONE;
        const int thread = block_reduce<Least>(mine, NONE, shared.scratch);
        return thread == NONE ? LOWEST : sorted[min((thread + 1) * chunk, tiles) - 1];
    }

    // All that may stay is listed. ``all``: the weights that top-p counts shares of, or -1: of what is left by then.
    __device__ int from_list(int k, float p, double all, double noise, float from, float& least, double& total) {
        const int n = shared.listed, i = threadIdx.x;
        int count;
        u64 sum;
        float mine;
        rank(count, sum, mine);
        least = from;
        if (k) {
            const float enough = i < n && count >= k ? mine : -INFINITE;
            least = fmaxf(least, block_reduce<Largest>(enough, -INFINITE, shared.scratch));
        }
        u64 stays = block_reduce<Largest>(mine >= least ? sum : 0ull, 0ull, shared.scratch);
        if (p < 1) {
            const double target = p * (all < 0 ? double(stays) : all * UNIT);
            const bool enough = mine >= least && double(sum) >= target;
            least = fmaxf(least, block_reduce<Largest>(enough ? mine : -INFINITE, -INFINITE, shared.scratch));
            stays = block_reduce<Largest>(mine >= least ? sum : 0ull, 0ull, shared.scratch);
        }
        total = double(stays) / UNIT;
        int token = NONE;
        if (mine >= least && i < n) {
            const int id = shared.id[i];
            u64 before = 0;
#pragma unroll 4
            for (int j = 0; j < n; ++j) {
                if (shared.id[j] <= id && shared.logit[j] >= least) before += shared.weight[j];
            }
            if (shared.weight[i] > 0 && double(before) > noise * double(stays)) token = id;
        }
        return block_reduce<Least>(token, NONE, shared.scratch);
    }

    // The largest x in [lower, top] such that the logits at or above it weigh ``target`` or more, or else count that
    // many; ``lower`` where there is none. ``reached``: by those at or above ``lower``, about; -1: not known.
    __device__ float search(bool by_weight, double target, float lower, double reached) {
        const int spare = line.spare();
        u32 low = key_of(lower, spare), high = key_of(top, spare) + 1;
        if (of_key(low, spare) < lower) ++low;  // the first logit that the type can hold
        int few = NONE, count_above = 0;        // logits at or above low and high
        double above = 0;                       // what those at or above high reach
        for (int pass = 0; low + 1 < high; ++pass) {
            const float a = of_key(low, spare), b = of_key(high - 1, spare);
            if (few - count_above <= LIST) {
                gather(a, of_key(high, spare));
                int count;
                u64 sum;
                float mine;
                rank(count, sum, mine);
                const bool enough = above + (by_weight ? double(sum) / UNIT : double(count)) >= target;
                return fmaxf(a, block_reduce<Largest>(enough ? mine : -INFINITE, -INFINITE, shared.scratch));
            }
            float from[3];
            guess(pass, a, b, (reached - target) / (reached - above), from);
            u32 tries[3];
#pragma unroll
            for (int j = 0; j < 3; ++j) {
                // Halving the bits comes to an end, whatever the logits are.
                const u32 bits = pass < 8 ? key_of(from[j], spare) : low + u32(u64(high - low) * (j + 1) / 4);
                tries[j] = min(max(bits, low + 1), high - 1);
                from[j] = of_key(tries[j], spare);
            }
            measure(from);
#pragma unroll
            for (int j = 2; j >= 0; --j) {
                if (tries[j] >= high) continue;
                int count = 0;
                double weighs = 0;
                for (int w = 0; w < WARPS; ++w) count += shared.counts[j][w], weighs += shared.weights[j][w];
                const double got = by_weight ? weighs : double(count);
                if (got >= target) {
                    low = tries[j], few = count, reached = got;
                    break;
                }
                high = tries[j], count_above = count, above = got;
            }
        }
        return of_key(low, spare);
    }

    // Thresholds to try between a and b, rising. ``share``: where in between the target lies if all is even there.
    __device__ __forceinline__ void guess(int pass, float a, float b, double share, float (&from)[3]) const {
        if (a < 0.5f * LOWEST) {  // no bound yet: farther and farther down from the least of the tiles' largest
            const float m = fmaxf(sorted[tiles - 1], top - 1e25f);
            const float down = fmaxf(top - m, 1e-3f * fabsf(top)) * float(1 << min(4 * pass, 28));
            const float start = pass ? b : m;
            from[0] = start - 3 * down, from[1] = start - 0.5f * down, from[2] = start - (pass ? 0.1f * down : 0);
        } else if (pass == 0 || !(share > 0 && share < 1)) {
            from[0] = a + (b - a) * 0.25f, from[1] = a + (b - a) * 0.5f, from[2] = a + (b - a) * 0.75f;
        } else {  // around the place, and in the middle of the longer rest, where it is if the logits lie unevenly
            const float at = float(share), left = at - 0.0625f, right = at + 0.0625f;
            const bool up = at < 0.5f;
            from[0] = a + (b - a) * (up ? left : 0.5f * left);
            from[1] = a + (b - a) * (up ? right : left);
            from[2] = a + (b - a) * (up ? 0.5f * (right + 1) : right);
        }
    }

    // For each threshold (rising), by warp: how many logits are at or above it, and what they weigh. mass: of what is
    // at or above the first.
    __device__ void measure(const float (&from)[3]) {
        const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
        int counts[3] = {0, 0, 0};
        double sums[3] = {0, 0, 0};
        __syncthreads();
        for (int tile = warp; tile < tiles; tile += WARPS) {
            float s[3] = {0, 0, 0};
            if (largest[tile] >= from[0]) {
                float v[EACH];
                line.read(tile, v);
#pragma unroll
                for (int e = 0; e < EACH; ++e) {
                    const float of = weight(v[e]);
#pragma unroll
                    for (int j = 0; j < 3; ++j) {
                        if (v[e] >= from[j]) ++counts[j], s[j] += of;
                    }
                }
#pragma unroll
                for (int j = 0; j < 3; ++j) s[j] = warp_sum(s[j]), sums[j] += s[j];
            }
            if (lane == 0) mass[tile] = s[0];
        }
#pragma unroll
        for (int j = 0; j < 3; ++j) {
            const int count = __reduce_add_sync(~0u, counts[j]);
            if (lane == 0) shared.counts[j][warp] = count, shared.weights[j][warp] = sums[j];
        }
        __syncthreads();
    }

    // mass: of what is at or above ``least``. Returns their sum.
    __device__ double sum_up(float least) {
        const float from[3] = {least, INFINITE, INFINITE};
        measure(from);
        double all = 0;
        for (int w = 0; w < WARPS; ++w) all += shared.weights[0][w];
        return all;
    }
};

}  // namespace
