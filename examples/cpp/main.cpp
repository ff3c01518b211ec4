// Find defects in images with an exported detector: onnxruntime, no Python.
//
//     find_defects student.onnx IMAGE ...
//
// Prints a line of JSON for each image, as deploy/infer.py does: the verdict (NG if there is a box, else OK) and the boxes,
// best first, in pixels of the image. Classes and their thresholds come from the file. Exit code 2: something cannot be
// read. AGPL-3.0.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#define STB_IMAGE_IMPLEMENTATION
#include <stb/stb_image.h>

using json = nlohmann::ordered_json;

constexpr float kConfidence = 0.25f;  // lowest score where a file has none
constexpr float kOverlap = 0.7f;      // IoU above which the weaker box of a class goes
constexpr size_t kMost = 300;         // most boxes of an image
constexpr uint8_t kGray = 114;        // of the padding

struct Image {
  int height = 0, width = 0;
  std::vector<uint8_t> rgb;  // rows of pixels of three bytes
};

struct Box {
  float x1, y1, x2, y2, score;
  int label;
};

// Of gray images of 16 bits: the upper 8 of the bits that the camera uses. Turning by EXIF is up to the caller.
Image read_image(const std::string& path, int bits) {
  using Pixels = std::unique_ptr<void, void (*)(void*)>;
  int width, height, channels;
  if (!stbi_info(path.c_str(), &width, &height, &channels)) throw std::runtime_error(path + " cannot be read");
  Image image{height, width, std::vector<uint8_t>(size_t(height) * width * 3)};
  if (channels == 1 && stbi_is_16_bit(path.c_str())) {
    Pixels gray(stbi_load_16(path.c_str(), &width, &height, &channels, 1), stbi_image_free);
    if (!gray) throw std::runtime_error(path + " cannot be read");
    for (size_t i = 0; i < image.rgb.size(); ++i)
      image.rgb[i] = uint8_t(std::min(static_cast<uint16_t*>(gray.get())[i / 3] >> (bits - 8), 255));
  } else {
    Pixels color(stbi_load(path.c_str(), &width, &height, &channels, 3), stbi_image_free);
    if (!color) throw std::runtime_error(path + " cannot be read: " + stbi_failure_reason());
    std::copy_n(static_cast<uint8_t*>(color.get()), image.rgb.size(), image.rgb.begin());
  }
  return image;
}

struct Tap {
  int first, second, weight, other;  // two source pixels, and the weights of both in 1/2048
};

std::vector<Tap> taps(int from, int to, bool border) {
  std::vector<Tap> found(to);
  for (int i = 0; i < to; ++i) {
    const float place = float((i + 0.5) * (1.0 / (double(to) / from)) - 0.5), first = std::floor(place);
    const float part = border && (first < 0 || first >= from - 1) ? 0.0f : place - first;
    const int left = int(first);
    found[i] = {std::clamp(left, 0, from - 1), std::clamp(left + 1, 0, from - 1),
                int(std::nearbyint((1 - part) * 2048.0f)), int(std::nearbyint(part * 2048.0f))};
  }
  return found;
}

// How an image lies in the input: scaled into its middle.
struct Fit {
  int height, width, top, left;
};

Fit fitted(const Image& image, int height, int width) {
  const double ratio = std::min(double(height) / image.height, double(width) / image.width);
  const int h = std::max(int(std::nearbyint(image.height * ratio)), 1);
  const int w = std::max(int(std::nearbyint(image.width * ratio)), 1);
  return {h, w, int(std::nearbyint((height - h) / 2.0 - 0.1)), int(std::nearbyint((width - w) / 2.0 - 0.1))};
}

// An image in an input: RGB planes in [0, 1], padded with gray; bilinear to the last bit as OpenCV's INTER_LINEAR.
std::vector<float> letterbox(const Image& image, int height, int width) {
  const Fit fit = fitted(image, height, width);
  const auto rows = taps(image.height, fit.height, false), columns = taps(image.width, fit.width, true);
  std::vector<float> planes(size_t(3) * height * width, kGray / 255.0f);
  for (int y = 0; y < fit.height; ++y)
    for (int x = 0; x < fit.width; ++x)
      for (int c = 0; c < 3; ++c) {
        const Tap &row = rows[y], &column = columns[x];
        const auto across = [&](int line) {
          const uint8_t* pixels = image.rgb.data() + size_t(line) * image.width * 3 + c;
          return (pixels[column.first * 3] * column.weight + pixels[column.second * 3] * column.other) >> 4;
        };
        const int value = ((across(row.first) * row.weight >> 16) + (across(row.second) * row.other >> 16) + 2) >> 2;
        planes[(size_t(c) * height + fit.top + y) * width + fit.left + x] = float(uint8_t(value)) / 255.0f;
      }
  return planes;
}

// Of boxes of one class that overlap by more than kOverlap, the one with the highest score; best first.
std::vector<Box> suppressed(std::vector<Box> boxes) {
  std::stable_sort(boxes.begin(), boxes.end(), [](const Box& a, const Box& b) { return a.score > b.score; });
  std::vector<Box> kept;
  const auto area = [](const Box& box) { return (box.x2 - box.x1) * (box.y2 - box.y1); };
  for (const Box& box : boxes) {
    const bool free = std::none_of(kept.begin(), kept.end(), [&](const Box& other) {
      const float w = std::max(0.0f, std::min(box.x2, other.x2) - std::max(box.x1, other.x1));
      const float h = std::max(0.0f, std::min(box.y2, other.y2) - std::max(box.y1, other.y1));
      return box.label == other.label && w * h > kOverlap * (area(box) + area(other) - w * h);
    });
    if (free) kept.push_back(box);
    if (kept.size() == kMost) break;
  }
  return kept;
}

class Detector {
 public:
  explicit Detector(const char* file) : session_(environment_, file, Ort::SessionOptions{}) {
    environment_.DisableTelemetryEvents();  // newer releases report to their maker
    if (metadata("task") != "detect") throw std::runtime_error(std::string(file) + " is no detector of Ultralytics");
    facts_ = json::parse(metadata("dfssd"));
    if (facts_.contains("preprocess")) throw std::runtime_error("the training images were changed: use dfssd predict");
    const json thresholds = facts_.value("thresholds", json::object());
    for (const std::string name : facts_.at("names")) {
      names_.push_back(name);
      thresholds_.push_back(thresholds.value(name, kConfidence));
    }
    const auto type = session_.GetInputTypeInfo(0);
    const auto info = type.GetTensorTypeAndShapeInfo();
    if (info.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) throw std::runtime_error("made for 32 bits");
    const auto shape = info.GetShape();
    if (shape.at(0) > 1) throw std::runtime_error("made for one image at once: export with batch=1");
    fixed_ = shape.at(2) > 0 && shape.at(3) > 0;
    const json sides = json::parse(metadata("imgsz"));
    height_ = fixed_ ? int(shape[2]) : sides.at(0).get<int>();
    width_ = fixed_ ? int(shape[3]) : sides.at(1).get<int>();
    stride_ = std::stoi(metadata("stride"));
  }

  int bits() const { return facts_.value("bits", 16); }
  const std::string& name(int label) const { return names_.at(label); }

  std::vector<Box> find(const Image& image) {
    int height = height_, width = width_;
    if (!fixed_) {  // no more than the image needs
      const Fit fit = fitted(image, height_, width_);
      height = (fit.height + stride_ - 1) / stride_ * stride_, width = (fit.width + stride_ - 1) / stride_ * stride_;
    }
    std::vector<float> pixels = letterbox(image, height, width);
    const int64_t shape[] = {1, 3, height, width};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::Value input = Ort::Value::CreateTensor<float>(memory, pixels.data(), pixels.size(), shape, 4);
    const auto in = session_.GetInputNameAllocated(0, allocator_), out = session_.GetOutputNameAllocated(0, allocator_);
    const char *inputs[] = {in.get()}, *outputs[] = {out.get()};
    const auto found = session_.Run(Ort::RunOptions{}, inputs, &input, 1, outputs, 1);
    std::vector<Box> boxes = decoded(found.at(0));
    const Fit fit = fitted(image, height, width);
    const float x = float(double(fit.width) / image.width), y = float(double(fit.height) / image.height);
    for (Box& box : boxes) {
      for (float* edge : {&box.x1, &box.x2}) *edge = std::clamp((*edge - fit.left) / x, 0.0f, float(image.width));
      for (float* edge : {&box.y1, &box.y2}) *edge = std::clamp((*edge - fit.top) / y, 0.0f, float(image.height));
    }
    return boxes;
  }

 private:
  // Finished rows of a file with nms=true, or columns of center x, y, width, height, and all scores.
  std::vector<Box> decoded(const Ort::Value& output) const {
    const auto shape = output.GetTensorTypeAndShapeInfo().GetShape();
    const float* data = output.GetTensorData<float>();
    const size_t rows = shape.at(1), columns = shape.at(2);
    std::vector<Box> boxes;
    if (columns == 6) {
      for (const float* row = data; row < data + rows * 6; row += 6)
        if (row[4] > 0 && row[4] >= thresholds_.at(int(row[5])))
          boxes.push_back({row[0], row[1], row[2], row[3], row[4], int(row[5])});
      boxes.resize(std::min(boxes.size(), kMost));
      return boxes;
    }
    for (size_t i = 0; i < columns; ++i) {
      const auto value = [&](size_t row) { return data[row * columns + i]; };
      size_t best = 4;
      for (size_t row = 5; row < rows; ++row)
        if (value(row) > value(best)) best = row;
      const float score = value(best), half_w = value(2) / 2, half_h = value(3) / 2;
      if (score > 0 && score >= thresholds_.at(best - 4))
        boxes.push_back({value(0) - half_w, value(1) - half_h, value(0) + half_w, value(1) + half_h, score, int(best) - 4});
    }
    return suppressed(std::move(boxes));
  }

  std::string metadata(const char* key) {
    const auto found = session_.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator_);
    if (!found) throw std::runtime_error(std::string("the file has no metadata '") + key + "': export it with dfssd");
    return found.get();
  }

  Ort::Env environment_{ORT_LOGGING_LEVEL_WARNING, "dfssd"};
  Ort::AllocatorWithDefaultOptions allocator_;
  Ort::Session session_;
  json facts_;
  std::vector<std::string> names_;
  std::vector<float> thresholds_;
  int height_ = 0, width_ = 0, stride_ = 32;
  bool fixed_ = true;
};

int main(int count, char** words) try {
  if (count < 3) throw std::runtime_error("usage: find_defects student.onnx IMAGE ...");
  Detector detector(words[1]);
  int code = 0;
  for (int i = 2; i < count; ++i) try {
      json boxes = json::array();
      for (const Box& box : detector.find(read_image(words[i], detector.bits())))
        boxes.push_back({{"class", detector.name(box.label)},
                         {"score", box.score},
                         {"box", {box.x1, box.y1, box.x2, box.y2}}});
      const char* verdict = boxes.empty() ? "OK" : "NG";
      std::cout << json{{"image", words[i]}, {"verdict", verdict}, {"boxes", boxes}}.dump() << std::endl;
    } catch (const std::exception& e) {
      std::cerr << "error: " << e.what() << std::endl;
      code = 2;
    }
  return code;
} catch (const std::exception& e) {
  std::cerr << "error: " << e.what() << std::endl;
  return 2;
}
