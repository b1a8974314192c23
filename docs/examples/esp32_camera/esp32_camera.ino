// An ESP32-CAM (AI-Thinker, OV2640) as a camera of edge: one JPEG a message over MQTT 3.1.1.
//
// Arduino core 3.x for ESP32, board "AI Thinker ESP32-CAM", PSRAM on; no further library: esp-mqtt
// comes with the core. Bind at the box:  camera.top = "line/top/frame/{reference_id}/{frame_id}"
//
// What it takes care of:
// - Frame ids. The topic carries one, for MQTT 3.1.1 has no properties. A count of boots in flash
//   stands in it: an id that was used gets `id-reused` instead of a judgement.
// - Old pictures. A picture that was begun before the trigger is thrown away: the driver keeps some.
// - Late pictures. Published at QoS 0, and only while connected. Nothing here tells the box when a
//   picture was taken, so one that is sent again after an outage would be judged as a new part.
//   What is lost is silence, and the gate treats silence as reject.
// - Radio. Power saving costs up to 100 ms and more a message, so it is off.
#include <Arduino.h>
#include <Preferences.h>
#include <WiFi.h>

#include "esp_camera.h"
#include "mqtt_client.h"

static const char WIFI_NAME[] = "line-1";
static const char WIFI_PASSWORD[] = "change me";
static const char BROKER[] = "mqtt://192.168.1.10:1883";
static const char MQTT_USER[] = "camera-top";
static const char MQTT_PASSWORD[] = "change me";
static const char FRAMES[] = "line/top/frame";
static const char REFERENCE[] = "board-0003";  // a level of a topic: no / + #
static const int TRIGGER_PIN = 13;             // pulled up; a light barrier pulls it down
static const int64_t TOO_LATE_US = 500000;     // for a picture: the part is gone

static esp_mqtt_client_handle_t mqtt;
static QueueHandle_t triggers;
static volatile bool connected = false;
static char run_id[40];
static uint32_t frames = 0;

static void IRAM_ATTR onTrigger() {
  int64_t now = esp_timer_get_time();
  xQueueSendFromISR(triggers, &now, NULL);  // full: that part gets no picture, and no pass
}

static void onMqtt(void *, esp_event_base_t, int32_t event, void *) {
  if (event == MQTT_EVENT_CONNECTED) connected = true;
  if (event == MQTT_EVENT_DISCONNECTED) connected = false;
}

static void restartAfter(const char *reason) {
  Serial.printf("%s: restarting\n", reason);
  delay(5000);
  ESP.restart();
}

static void nameThisRun() {
  Preferences flash;
  flash.begin("edge", false);
  uint32_t boot = flash.getUInt("boots", 0) + 1;
  // Without a count that lasts, ids would come again.
  if (flash.putUInt("boots", boot) == 0) restartAfter("flash: the count of boots cannot be kept");
  flash.end();
  snprintf(run_id, sizeof run_id, "esp32-%012llx-%lu", (unsigned long long)ESP.getEfuseMac(),
           (unsigned long)boot);
}

static void startCamera() {
  camera_config_t config = {};
  config.pin_pwdn = 32;
  config.pin_reset = -1;
  config.pin_xclk = 0;
  config.pin_sccb_sda = 26;
  config.pin_sccb_scl = 27;
  config.pin_d7 = 35;
  config.pin_d6 = 34;
  config.pin_d5 = 39;
  config.pin_d4 = 36;
  config.pin_d3 = 21;
  config.pin_d2 = 19;
  config.pin_d1 = 18;
  config.pin_d0 = 5;
  config.pin_vsync = 25;
  config.pin_href = 23;
  config.pin_pclk = 22;
  config.xclk_freq_hz = 20000000;
  config.ledc_timer = LEDC_TIMER_0;
  config.ledc_channel = LEDC_CHANNEL_0;
  config.pixel_format = PIXFORMAT_JPEG;
  config.frame_size = FRAMESIZE_VGA;  // 640 x 480
  config.jpeg_quality = 8;            // 0..63, lower is better
  config.fb_count = 2;
  config.fb_location = CAMERA_FB_IN_PSRAM;
  config.grab_mode = CAMERA_GRAB_LATEST;
  if (esp_camera_init(&config) != ESP_OK) restartAfter("camera: not found");
}

static void startMqtt() {
  esp_mqtt_client_config_t config = {};
  config.broker.address.uri = BROKER;
  config.credentials.client_id = run_id;
  config.credentials.username = MQTT_USER;
  config.credentials.authentication.password = MQTT_PASSWORD;
  config.session.keepalive = 10;
  config.network.timeout_ms = 2000;
  config.network.reconnect_timeout_ms = 1000;
  config.buffer.size = 4096;  // of one write; a larger message goes out in several
  mqtt = esp_mqtt_client_init(&config);
  esp_mqtt_client_register_event(mqtt, MQTT_EVENT_ANY, onMqtt, NULL);
  esp_mqtt_client_start(mqtt);
}

void setup() {
  Serial.begin(115200);
  nameThisRun();
  startCamera();
  WiFi.mode(WIFI_STA);
  WiFi.setSleep(false);
  WiFi.setAutoReconnect(true);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  startMqtt();
  triggers = xQueueCreate(4, sizeof(int64_t));
  pinMode(TRIGGER_PIN, INPUT_PULLUP);
  attachInterrupt(digitalPinToInterrupt(TRIGGER_PIN), onTrigger, FALLING);
}

// Returns a picture that was begun after an instant, or NULL; to be given back.
static camera_fb_t *pictureAfter(int64_t instant_us) {
  while (esp_timer_get_time() - instant_us < TOO_LATE_US) {
    camera_fb_t *picture = esp_camera_fb_get();
    if (picture == NULL) return NULL;
    int64_t begun_us = picture->timestamp.tv_sec * 1000000LL + picture->timestamp.tv_usec;
    if (begun_us >= instant_us) return picture;
    esp_camera_fb_return(picture);
  }
  return NULL;
}

void loop() {
  int64_t triggered_us;
  if (xQueueReceive(triggers, &triggered_us, pdMS_TO_TICKS(1000)) != pdTRUE) return;
  uint32_t number = frames++;  // a trigger without a picture leaves a gap
  camera_fb_t *picture = pictureAfter(triggered_us);
  if (picture == NULL) {
    Serial.printf("%s-%06lu: no picture in time\n", run_id, (unsigned long)number);
    return;
  }
  char topic[128];
  snprintf(topic, sizeof topic, "%s/%s/%s-%06lu", FRAMES, REFERENCE, run_id,
           (unsigned long)number);
  int sent = connected ? esp_mqtt_client_publish(mqtt, topic, (const char *)picture->buf,
                                                 (int)picture->len, 0, 0)
                       : -1;
  esp_camera_fb_return(picture);
  if (sent < 0) Serial.printf("%s: not sent\n", topic);
}
